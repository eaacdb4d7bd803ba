# The load tester by itself: its demo, and its sending engine under sanitizers.
LOADTEST_REPORT ?= build/loadtest-demo
LOADTEST_ARGUMENTS ?=
SENDER_TESTS = tests/unit/loadtest/test_check_senders.py tests/unit/loadtest/test_http_senders.py \
  tests/unit/loadtest/test_hostile_answers.py

.PHONY: loadtest-demo sender-check

loadtest-demo: $(READY)  ## What authorization costs behind a real Envoy: built-in, native, grpcio, at three rates
	$(BIN)/python -m extauthz.loadtest.demo $(LOADTEST_ARGUMENTS) $(LOADTEST_REPORT)

sender-check: $(READY)  ## A sanitizer build of the load tester's sending engine: its tests
	CFLAGS="$(SANITIZED)" $(BIN)/python setup.py -q build_ext --inplace --force
	LD_PRELOAD=$(PRELOADED) ASAN_OPTIONS=detect_leaks=0 $(BIN)/python -m pytest -q -n0 $(SENDER_TESTS); \
	  status=$$?; $(BIN)/python setup.py -q build_ext --inplace --force; exit $$status
