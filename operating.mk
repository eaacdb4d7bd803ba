# Restarts behind the real Envoy, of which `make test` has a short form, and overload.
RESTART_ROUNDS ?= 10

.PHONY: restart-check

restart-check: $(READY)  ## Restart servers behind Envoy on both transports, one JSON line each (RESTART_ROUNDS=)
	RESTART_ROUNDS=$(RESTART_ROUNDS) $(BIN)/pytest -q -s -n0 --timeout 0 -k "rolling_restart or stopping_and_then_starting" \
	  tests/envoy/test_server_behind_envoy.py

OVERLOAD_TRANSPORT ?= grpcio
OVERLOAD_RATES ?= 1000,2000,3000,4000,6000

.PHONY: overload-check

overload-check: $(READY)  ## Ask a server for three times its capacity: one JSON line (OVERLOAD_TRANSPORT=, OVERLOAD_RATES=)
	$(BIN)/python tests/faults/overload.py $(OVERLOAD_TRANSPORT) $(OVERLOAD_RATES)
