@whole
Feature: The whole
  What is looked at is judged by all rules, those that no step above names too: room, clocks, restart policies,
  overridden units, leaders that change, and what stands behind the cluster.

  Scenario: Nothing else is wrong
    Then nothing else is wrong within 10 seconds
