# To be copied to hosts.auto.tfvars, which Terraform reads by itself.

# IPv4 addresses at which the hosts reach each other, and the operator them. The first three become the cluster when
# terraform.tfvars says machines = 3; further ones wait.
hosts = ["10.0.0.11", "10.0.0.12", "10.0.0.13"]

# A user of theirs with sudo that asks no password, and the private key that lets it in ("": the ssh-agent's)
user     = "debian"
key_file = "~/.ssh/id_ed25519"

# Their public keys: ssh-keyscan 10.0.0.11 10.0.0.12 10.0.0.13 > known_hosts, once their fingerprints were compared
known_hosts = "known_hosts"
