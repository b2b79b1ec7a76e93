# How the hosts are reached, with keys that are known beforehand: Terraform's provisioners check none unless they are told.
locals {
  bundle           = "/var/lib/platform-bundle"
  key_file         = var.key_file == "" ? "" : abspath(pathexpand(var.key_file))
  private_key      = local.key_file == "" ? null : file(local.key_file)
  known_hosts_file = startswith(var.known_hosts, "/") ? var.known_hosts : "${path.module}/${var.known_hosts}"
  machine_ids      = abspath("${path.module}/.machine-ids")
  script           = "/tmp/platform-${var.run_id}-%RAND%.sh" # one is left when a connection breaks
  patience         = "${ceil(60 * var.patience)}s"
  private_address  = "^(10|127|192\\.168|172\\.(1[6-9]|2[0-9]|3[01])|100\\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7]))\\."

  # ADDRESS[,...] TYPE KEY, each a word
  known = [
    for line in fileexists(local.known_hosts_file) ? split("\n", file(local.known_hosts_file)) : [] :
    split(" ", replace(trimspace(line), "/[ \t]+/", " ")) if !startswith(trimspace(line), "#")
  ]
  host_keys = { for address in values(local.machines) : address => [
    for words in local.known : "${words[1]} ${words[2]}" if length(words) >= 3 && contains(split(",", words[0]), address)
  ] }

  # Which of its keys a host shows is up to both sides: all are given. Terraform writes this behind a host's address into
  # a file of the known_hosts form.
  pinned = { for address, keys in local.host_keys : address => join("\n${address} ", keys) }
}
