# Owns the commands of daily work. Needs node, npm and make; everything else comes from package-lock.json.

arch := $(shell uname -m | sed -e 's/x86_64/x64/' -e 's/aarch64/arm64/')
# The Node that the executable is made of also builds it and runs its tests: the machine's own may be any.
node := node_modules/node-linux-$(arch)/bin/node
installed := node_modules/.installed

# src/main.ts sets it for itself, but from source Node has started its threads before that.
export UV_THREADPOOL_SIZE = 16

sources := $(wildcard src/*.* src/*/*.* src/*/*/*.* src/*/*/*/*.*) $(wildcard scripts/*.ts)
# The commit's date is part of the executable.
commit := $(wildcard .git/logs/HEAD)
tests := $(if $(T),test/$(T).test.ts,$(wildcard test/*.test.ts))

# Those of the protocol, which have to hold on every database.
protocol := account batch changes client client-feed client-session conditions digest event-stream guards \
	hostile invitation key limit list mail matrix model openapi password permission quota race range replica \
	replica-account replica-meta replica-shared replica-trouble session store upload

.PHONY: help run dev build release test suite seeded linearizable cluster attack faults disks powercut crash soak bench scale check fix clean fuzz

help: ## print this list
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile

run: dist/sync-node ## build and start the server, in the foreground
	exec dist/sync-node serve

dev: $(installed) ## run from source, and start again on every change
	$(node) scripts/web.ts
	$(node) scripts/client.ts
	exec $(node) --watch src/main.ts serve

build: dist/sync-node ## make dist/sync-node, the one file that is the product

release: dist/sync-node ## make all that people download, for x64 and arm64, in dist/release
	$(node) scripts/release/main.ts

# One test without the checks, to be quick while working.
test: $(if $(T),,check) dist/sync-node ## check, build and run all tests; T=name runs test/name.test.ts alone
	$(node) --import tsx --test --test-concurrency=2 $(tests)

suite: $(installed) ## run the tests of the protocol on DATABASE=sqld, a database server; T=name runs one of them
	TEST_DATABASE=$${DATABASE:-sqld} $(node) --import tsx --test --test-concurrency=1 $(if $(T),$(tests),$(protocol:%=test/%.test.ts))

seeded: $(installed) ## prove that the tests notice: seed bugs, one at a time, and see them fail
	$(node) scripts/seeded.ts

linearizable: dist/sync-node ## play OPERATIONS= (a million) by many clients with KILLS=, and look for an order of them
	OPERATIONS=$${OPERATIONS:-1000000} KILLS=$${KILLS:-100} $(node) --import tsx --test test/linearizable.test.ts

cluster: dist/sync-node ## three nodes behind nginx, that fail as all behind them does, FAULTS= times: OPERATIONS=, SEED=2
	$(node) --import tsx scripts/cluster.ts

attack: dist/sync-node ## flood it with logins, guess who has an account, lie about addresses; prints a table
	$(node) scripts/attack.ts

faults: dist/sync-node ## prove what becomes of every change when any call on a file fails: some hours; MOST=20 for less
	$(node) scripts/faults.ts

disks: dist/sync-node ## prove what full, read-only, slow and damaged disks do, and wrong clocks: an hour
	$(node) scripts/disks.ts

powercut: dist/sync-node ## cut the power in recorded days: STATES=100000, SEED=2, SEEDED=1 for seeded bugs too
	$(node) scripts/powercut.ts

crash: dist/sync-node ## kill -9 again and again while clients write: CYCLES=10000, SEED=2
	$(node) scripts/crash.ts

soak: dist/sync-node ## use it for a year: OPERATIONS= (five million) by many, and see that nothing grows; SEED=2
	$(node) scripts/soak.ts

fuzz: dist/sync-node ## send it REQUESTS= (a million) that no client would, and slow clients: SEED=2, AT= for one that failed
	$(node) scripts/fuzz.ts

bench: dist/sync-node ## measure it beside nginx, Apache, rclone and others: BENCH=word for a part, ROUNDS=5
	$(node) scripts/bench/main.ts $(BENCH)

scale: dist/sync-node ## what a million accounts need: costs measured, the fan-out simulated: SEED=2
	$(node) scripts/scale.ts

check: $(installed) ## formatting, lint, types, unused code
	node_modules/.bin/oxfmt --check
	node_modules/.bin/oxlint src scripts test
	node_modules/.bin/tsc
	node_modules/.bin/tsc -p src/web
	node_modules/.bin/tsc -p test/notes
	node_modules/.bin/knip

fix: $(installed) ## format, and mend what lint can mend
	-node_modules/.bin/oxlint --fix --quiet src scripts test
	node_modules/.bin/oxfmt

clean: ## remove what was built
	rm -rf dist

dist/sync-node: $(installed) $(sources) $(commit) package.json sea-config.json
	$(node) scripts/build.ts

$(installed): package-lock.json
	@case '$(arch)' in x64|arm64) ;; *) echo 'Sync Node builds on x64 and arm64 Linux; this is $(arch).' >&2; exit 1 ;; esac
	npm ci --ignore-scripts --no-audit --no-fund
	@test -x $(node) || { echo 'npm did not install node-linux-$(arch), the pinned Node.' >&2; exit 1; }
	@touch $@
