# A table of contents: every target is a command of bin/platform, where the logic and the exit status are.
# (make itself ends with 2 whatever a command ended with: cron and scripts call bin/platform.)
# TARGET, MACHINES, KEEP, LIST, N, RUN, SYSTEM and PATIENCE reach the command as they are; ARGS (FILES) is what stands
# behind it.

.PHONY: help acceptance recovery up check down nightly diagnose drill shell runbook setup test try-system hosts lint-units lint bench clean

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

acceptance: ## execute the runbook on a cluster built for it, and remove it
	@bin/platform acceptance $(ARGS)

recovery: ## the disasters that take minutes, on a cluster built for them
	@bin/platform recovery $(ARGS)

up: ## build a cluster by the runbook's commands, and keep it
	@bin/platform up $(ARGS)

check: ## what must hold on a standing cluster; choose as pytest does
	@bin/platform check $(ARGS)

down: ## remove a standing cluster, or what is left of one
	@bin/platform down $(ARGS)

nightly: ## all that must hold on a standing cluster, changing nothing; one line when all is well
	@bin/platform nightly $(ARGS)

diagnose: ## what is wrong with a standing cluster, what to do, and all evidence in one file; within 30 seconds
	@bin/platform diagnose $(ARGS)

drill: ## break a cluster on purpose, one fault at a time, and see whether the nightly names it
	@bin/platform drill $(ARGS)

shell: ## a shell to type the runbook by hand in: of a new cluster, removed at its end, or of RUN
	@bin/platform shell $(ARGS)

runbook: ## write the runbook as a page, each step with its last evidence
	@bin/platform runbook $(ARGS)

setup: ## install and build what a run needs, and nothing else
	@bin/platform setup

test: ## the harness's own tests: offline, without Docker
	@bin/platform test $(ARGS)

try-system: ## both commands of the README in a bare SYSTEM (bookworm, trixie, noble), from nothing
	@bin/platform try-system

hosts: ## make N stock hosts (plain Debian or Ubuntu, as containers) for TARGET=hosts, or remove them
	@bin/platform hosts $(ARGS)

lint-units: ## what fleet would make of unit files, before anything is loaded
	@bin/platform lint-units $(FILES)

lint: ## style, types, shell and Terraform; reports all problems
	@bin/platform lint

bench: ## what the runbook costs beside a plain script (a warm machine, no other load)
	@bin/platform bench $(ARGS)

clean: ## remove the cache, the images and the run folders
	@bin/platform clean

# a word that is no command, be it the name of a folder: bin/platform knows the nearest one
%: FORCE
	@bin/platform $@
FORCE: ;
Makefile: ;
