# The console, and what runs in a browser. Where Node.js or Chromium is missing,
# what needs it is left out with a word.

BROWSER := tests/clients/browser
CHROMIUM ?= /usr/bin/chromium
# Print what the console and what the tests in a browser need and this machine has not.
NODE_MISSING := node -e 'const [major, minor] = process.versions.node.split("."); process.exit(major > 20 || major == 20 && minor >= 19 ? 0 : 1)' \
	2>/dev/null || echo "Node.js 20.19 or later"; \
	command -v npm >/dev/null || echo npm
BROWSER_MISSING := $(NODE_MISSING); test -x $(CHROMIUM) || echo chromium; command -v openssl >/dev/null || echo openssl
# An error where it was asked for by name, and in CI.
SKIPPED = { echo "$@: skipped, because these are missing:" $$missing >&2; test -z "$$CI$(filter $@,$(MAKECMDGOALS))"; }
NPM_CI := npm ci --cache $(abspath $(CACHE_DIR))/npm --ignore-scripts --no-audit --no-fund --loglevel error

IN_BROWSER = JAMMI_BIN=$(abspath $(TARGET_DIR))/debug/jammi CHROMIUM=$(CHROMIUM) npm test --silent -- $(BROWSER_TESTS)

.PHONY: console console-run browser browser-run

# Builds the page that `console.enabled` serves; the next build of the server embeds it.
console:
	@missing=$$($(NODE_MISSING)) && if [ -z "$$missing" ]; then $(MAKE) --no-print-directory $@-run; else $(SKIPPED); fi

console-run: console/node_modules/.package-lock.json
	cd console && npm run --silent generate && npm run --silent check
	@$(MAKE) --no-print-directory console/dist/index.html

console/dist/index.html: $(shell find console/src console/*.* proto -type f -not -path '*/gen/*')
	cd console && npm run --silent build

# Clients in a browser, then the console, each against a real server.
browser:
	@missing=$$($(BROWSER_MISSING)) && if [ -z "$$missing" ]; then $(MAKE) --no-print-directory $@-run; else $(SKIPPED); fi

# BROWSER_TESTS takes more arguments, as in `make browser BROWSER_TESTS='--grep @cancel'`.
browser-run: console $(BROWSER)/node_modules/.package-lock.json
	cargo build --locked $(FEATURES)
	cd $(BROWSER) && npm run --silent generate && npm run --silent check
	cd $(BROWSER) && $(IN_BROWSER)
	cd console && $(IN_BROWSER)

%/node_modules/.package-lock.json: %/package-lock.json
	cd $* && $(NPM_CI)
	touch $@
