@entry_point
Feature: 4. Determine the entry point and set it as fleetctl's tunnel
  The operator reaches the whole cluster through one address, and trusts only the host keys that Terraform handed out.

  @mutates @builds
  Scenario: Terraform names the entry point
    When the operator runs `terraform -chdir=infra/$TARGET output -raw entrypoint-ip`
    Then the answer is the address of machine "coreos-0", or a fixed one that leads there

  @mutates @builds
  Scenario: fleetctl reaches the cluster through the entry point
    When the operator runs `export FLEETCTL_TUNNEL=$(terraform -chdir=infra/$TARGET output -raw entrypoint-ip)`
    And the operator runs `terraform -chdir=infra/$TARGET output -raw known-hosts > known_hosts`
    And the operator runs `export FLEETCTL_KNOWN_HOSTS_FILE=$PWD/known_hosts`
    And the operator runs `terraform -chdir=infra/$TARGET output -raw ssh-config > ssh_config`
    And the operator runs `fleetctl list-machines`
    Then the answer lists every machine
