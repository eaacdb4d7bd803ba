# Hostile input of every kind: nothing may be wrongly allowed, crash, hang or grow. A short form is part of `make test`.
HOSTILE_INPUTS ?= 1000000
HOSTILE_SECONDS ?= 30
HOSTILE_IDLE ?= 10000
HOSTILE_SEED ?=

.PHONY: hostile

hostile: $(READY)  ## Give the service a million hostile inputs (HOSTILE_INPUTS=, HOSTILE_SEED=)
	$(BIN)/python tests/hostile --inputs $(HOSTILE_INPUTS) --seconds $(HOSTILE_SECONDS) --idle $(HOSTILE_IDLE) \
	  $(if $(HOSTILE_SEED),--seed $(HOSTILE_SEED))
