.PHONY: loadtest-demo

LOADTEST_REPORT ?= build/loadtest-demo
LOADTEST_ARGUMENTS ?=

loadtest-demo: $(READY)  ## What authorization costs behind a real Envoy: built-in, native, grpcio, at three rates
	$(BIN)/python -m extauthz.loadtest.demo $(LOADTEST_ARGUMENTS) $(LOADTEST_REPORT)
