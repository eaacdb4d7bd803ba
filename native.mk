# The native transport by itself: build it in place, and check it with sanitizers and mutated traffic.
SANITIZED = -fsanitize=address,undefined -fno-omit-frame-pointer -O1 -g
PRELOADED = $$(cc -print-file-name=libasan.so):$$(cc -print-file-name=libubsan.so)
FUZZ_ROUNDS ?= 200000

.PHONY: native native-check

native: $(READY)  ## Build the C extensions in place
	$(BIN)/python setup.py -q build_ext --inplace --force

native-check: $(READY)  ## Sanitizer builds of the native transport: its tests, and mutated traffic
	CFLAGS="$(SANITIZED)" $(BIN)/python setup.py -q build_ext --inplace --force
	LD_PRELOAD=$(PRELOADED) ASAN_OPTIONS=detect_leaks=0 $(BIN)/python -m pytest -q -n0 -p no:randomly \
	  tests/unit/server/test_transports.py tests/unit/native tests/unit/checkapi -k 'not grpcio'; \
	  status=$$?; $(BIN)/python setup.py -q build_ext --inplace --force; exit $$status
	EXTAUTHZ_FUZZ_ROUNDS=$(FUZZ_ROUNDS) $(BIN)/python -m pytest -q -n0 --timeout 3600 tests/native
