# What is deployed: checked without a cluster and without an engine.
IMAGE ?= extauthz:$(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' extauthz/_version.py)

PROMTOOL := .build/promtool

.PHONY: deploy-check alert-tools image

deploy-check: $(READY) alert-tools  ## Check the image's steps, manifests, chart, alerts and Envoy configurations
	$(BIN)/python -m pytest -n $(WORKERS) -q tests/deploy tests/envoy/test_deploy.py

# promtool alone is taken out of Debian's package, without installing the service that comes with it.
alert-tools:
	@command -v promtool >/dev/null || [ -x $(PROMTOOL) ] || { \
	echo "getting promtool"; rm -rf $(PROMTOOL).package; mkdir -p $(PROMTOOL).package; \
	( cd $(PROMTOOL).package && { [ "$$(id -u)" != 0 ] || apt-get -qq update; } && apt-get -qq download prometheus && \
	  dpkg -x prometheus_*.deb . && mv usr/bin/promtool .. ) >/dev/null 2>&1 || \
	  echo "alerts are not evaluated: that needs promtool (Debian: apt install prometheus)"; \
	rm -rf $(PROMTOOL).package; }

image:  ## Build the image (IMAGE names it)
	@command -v docker >/dev/null || { echo "no docker here; any engine builds deploy/Dockerfile"; exit 2; }
	docker build --file deploy/Dockerfile --tag $(IMAGE) .
