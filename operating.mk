# Restarts behind the real Envoy, of which `make test` has a short form, and overload.
RESTART_ROUNDS ?= 10

.PHONY: restart-check

restart-check: $(READY)  ## Restart servers behind Envoy on both transports, one JSON line each (RESTART_ROUNDS=)
	RESTART_ROUNDS=$(RESTART_ROUNDS) $(BIN)/pytest -q -s -n0 --timeout 0 -k "rolling_restart or stopping_and_then_starting" \
	  tests/envoy/test_server_behind_envoy.py

OVERLOAD_TRANSPORTS ?= grpcio native
OVERLOAD_WORK ?= 300
OVERLOAD_IN_FLIGHT ?= 256

.PHONY: overload-check

overload-check: $(READY)  ## Ask servers for three times their capacity: a JSON line each (OVERLOAD_TRANSPORTS=, OVERLOAD_WORK=)
	$(BIN)/python tests/faults/overload.py $(OVERLOAD_TRANSPORTS) --work $(OVERLOAD_WORK) --in-flight $(OVERLOAD_IN_FLIGHT)
