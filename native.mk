# The native transport by itself: build it in place, and check it with sanitizers, mutated traffic and hostile peers.
NATIVE := extauthz/server/native
SANITIZED := .build/sanitized
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g
PRELOADED = $$(cc -print-file-name=libasan.so):$$(cc -print-file-name=libubsan.so)
CHECK_ROUNDS ?= 300000
CHECK_SECONDS ?= 60
CHECK_CALLS ?= 1000000
CHECK_CONNECTIONS ?= 100000
CHECK_IDLE ?= 10000

.PHONY: native native-check native-fuzz transports-check

native: $(READY)  ## Build the C extensions in place
	$(BIN)/python setup.py -q build_ext --inplace --force

# Growth of memory is measured on the ordinary build: with sanitizers what is freed is held back for a while.
native-check: $(READY)  ## Sanitizer builds of the native transport: its tests, mutated traffic, hostile peers; then leaks
	rm -rf $(SANITIZED) && mkdir -p $(SANITIZED)
	cp -r extauthz setup.py pyproject.toml README.md LICENSE $(SANITIZED)
	find $(SANITIZED) -name '*.so' -delete
	cd $(SANITIZED) && CFLAGS="$(SANITIZE)" EXTAUTHZ_EXTENSIONS=required \
	  $(CURDIR)/$(BIN)/python setup.py -q build_ext --inplace
	LD_PRELOAD=$(PRELOADED) ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=$(CURDIR)/$(SANITIZED) \
	  EXTAUTHZ_HOSTILE_SECONDS=$(CHECK_SECONDS) $(BIN)/pytest -q -n0 --timeout 600 -k 'not grpcio and not leave_nothing_behind' \
	  tests/unit/native tests/unit/server/test_transports.py tests/unit/checkapi tests/unit/authn/test_plain_tokens.py \
	  tests/native/test_hostile.py
	EXTAUTHZ_FUZZ_ROUNDS=$(CHECK_ROUNDS) $(BIN)/pytest -q -n0 --timeout 3600 tests/native/test_sanitized.py
	@$(MAKE) --no-print-directory native-fuzz
	EXTAUTHZ_ENDURANCE_CALLS=$(CHECK_CALLS) EXTAUTHZ_ENDURANCE_CONNECTIONS=$(CHECK_CONNECTIONS) \
	  EXTAUTHZ_IDLE_CONNECTIONS=$(CHECK_IDLE) $(BIN)/pytest -q -n0 --timeout 900 tests/native/test_endurance.py

native-fuzz: $(READY)
	@command -v clang >/dev/null || { echo "no clang: libFuzzer is passed over (Debian: apt install clang)"; exit 0; }; \
	set -e; mkdir -p $(SANITIZED); rm -rf $(SANITIZED)/corpus; \
	clang -std=c11 -O1 -D_GNU_SOURCE -DLIBFUZZER -fsanitize=fuzzer $(SANITIZE) -I$(NATIVE) tests/native/fuzz_session.c \
	  $(NATIVE)/session.c $(NATIVE)/call.c -o $(SANITIZED)/fuzz_session -lnghttp2 -lm; \
	$(BIN)/python tests/native/seeds.py $(SANITIZED)/corpus; \
	$(SANITIZED)/fuzz_session -max_total_time=$(CHECK_SECONDS) -max_len=70000 -timeout=5 -print_final_stats=1 \
	  -artifact_prefix=$(SANITIZED)/ $(SANITIZED)/corpus >$(SANITIZED)/fuzz.log 2>&1 \
	  || { tail -60 $(SANITIZED)/fuzz.log; exit 1; }; grep number_of_executed $(SANITIZED)/fuzz.log

transports-check: $(READY)  ## The server's tests on each transport, those too that name none
	for transport in native grpcio; do \
	  EXTAUTHZ_TEST_TRANSPORT=$$transport $(BIN)/python -m pytest -n $(WORKERS) -q tests/unit/server || exit 1; done
