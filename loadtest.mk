# The load tester by itself: its demo, and its sending engine under sanitizers.
LOADTEST_REPORT ?= build/loadtest-demo
LOADTEST_ARGUMENTS ?=
SENDER_BUILD := .build/sanitized-sender
SENDER_TESTS = tests/unit/loadtest/test_check_senders.py tests/unit/loadtest/test_http_senders.py \
  tests/unit/loadtest/test_hostile_answers.py

.PHONY: loadtest-demo sender-check

loadtest-demo: $(READY)  ## What authorization costs behind a real Envoy: built-in, native, grpcio, at three rates
	$(BIN)/python -m extauthz.loadtest.demo $(LOADTEST_ARGUMENTS) $(LOADTEST_REPORT)
	$(BIN)/python -m benchmarks.loadtest_demo $(LOADTEST_REPORT)

sender-check: $(READY)  ## A sanitizer build of the load tester's sending engine: its tests
	rm -rf $(SENDER_BUILD) && mkdir -p $(SENDER_BUILD)
	cp -r extauthz setup.py pyproject.toml README.md LICENSE $(SENDER_BUILD)
	find $(SENDER_BUILD) -name '*.so' -delete
	cd $(SENDER_BUILD) && CFLAGS="$(SANITIZE)" EXTAUTHZ_EXTENSIONS=required \
	  $(CURDIR)/$(BIN)/python setup.py -q build_ext --inplace
	LD_PRELOAD=$(PRELOADED) ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=$(CURDIR)/$(SENDER_BUILD) \
	  $(BIN)/pytest -q -n0 --timeout 600 $(SENDER_TESTS)
