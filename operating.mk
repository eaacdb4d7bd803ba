# Restarts behind the real Envoy, under load. A short form is part of `make test`.
RESTART_ROUNDS ?= 10

.PHONY: restart-check

restart-check: $(READY)  ## Restart servers behind Envoy on both transports, one JSON line each (RESTART_ROUNDS=)
	RESTART_ROUNDS=$(RESTART_ROUNDS) $(BIN)/pytest -q -s -n0 --timeout 0 -k "rolling_restart or stopping_and_then_starting" \
	  tests/envoy/test_server_behind_envoy.py
