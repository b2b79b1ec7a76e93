@prerequisites
Feature: Prerequisites
  What the services rely on, as the runbook's section Prerequisites says it.

  Scenario: The units' helper files are on every machine
    Then every file under "container" is on every machine under "/home/core", byte for byte

  Scenario: The blogs run where they are deployed to
    Then unit "blog.service" runs on machine "coreos-0" and on no other
    And unit "jpblog.service" runs on machine "coreos-0" and on no other
