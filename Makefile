# A table of contents: every target is a command of bin/platform, where the logic and the exit status are.
# (make itself ends with 2 whatever a command ended with: cron and scripts call bin/platform.)
TARGET ?= local

.PHONY: help acceptance shell setup test lint bench clean

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

acceptance: ## execute the runbook on a cluster built for it, and remove it
	@bin/platform acceptance --target $(TARGET)

shell: ## a shell to type the runbook by hand in
	@bin/platform shell --target $(TARGET)

setup: ## install and build what a run needs, and nothing else
	@bin/platform setup

test: ## the harness's own tests
	@bin/platform test

lint: ## style, types, shell, Terraform
	@bin/platform lint

bench: ## what the runbook costs beside a plain script
	@bin/platform bench

clean: ## remove the cache, the images and the run folders
	@bin/platform clean
