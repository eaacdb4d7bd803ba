# Restarts behind the real Envoy, and overload. Short forms are part of `make test`.
RESTART_ROUNDS ?= 10

.PHONY: restart-check

restart-check: $(READY)  ## Restart servers behind Envoy on both transports, one JSON line each (RESTART_ROUNDS=)
	RESTART_ROUNDS=$(RESTART_ROUNDS) $(BIN)/pytest -q -s -n0 --timeout 0 -k "rolling_restart or stopping_and_then_starting" \
	  tests/envoy/test_server_behind_envoy.py

OVERLOAD_RATES_grpcio ?= 1000,2000,3000,4000,6000
OVERLOAD_RATES_native ?= 10000,20000,30000,40000

.PHONY: overload-check

overload-check: $(READY)  ## Ask each transport for three times its capacity: rate, latency, memory in one JSON line
	$(BIN)/python tests/faults/overload.py grpcio $(OVERLOAD_RATES_grpcio)
	$(BIN)/python tests/faults/overload.py native $(OVERLOAD_RATES_native)
