# What must stand before the runbook's third step: a network, a discovery service, an image registry,
# a name server.
resource "docker_network" "cluster" {
  name   = "platform-${var.run_id}"
  driver = "bridge"

  ipam_config {
    subnet  = var.subnet
    gateway = cidrhost(var.subnet, 1)
  }

  labels {
    label = "platform.run"
    value = var.run_id
  }
}

locals {
  discovery = cidrhost(var.subnet, 2)
  registry  = cidrhost(var.subnet, 3)
  names     = cidrhost(var.subnet, 4)
}

# A plain etcd keeps the cluster's discovery tokens, for as long as the run lasts.
resource "docker_container" "discovery" {
  name       = "platform-${var.run_id}-discovery"
  image      = var.machine_image
  entrypoint = ["/usr/bin/etcd"]
  command = [
    "--name=discovery", "--data-dir=/tmp/discovery", "--enable-v2",
    "--listen-client-urls=http://0.0.0.0:2379", "--advertise-client-urls=http://${local.discovery}:2379",
    # its peers are nobody
    "--listen-peer-urls=http://127.0.0.1:2380",
  ]
  tmpfs = { "/tmp" = "rw,mode=1777,size=256m" }

  networks_advanced {
    name         = docker_network.cluster.name
    ipv4_address = local.discovery
  }

  labels {
    label = "platform.run"
    value = var.run_id
  }
}

resource "docker_container" "registry" {
  name       = "platform-${var.run_id}-registry"
  image      = var.machine_image
  entrypoint = ["/usr/bin/docker-registry", "serve", "/etc/platform/registry.yml"]

  volumes {
    host_path      = var.registry_storage
    container_path = "/var/lib/registry"
    read_only      = true
  }

  networks_advanced {
    name         = docker_network.cluster.name
    ipv4_address = local.registry
  }

  labels {
    label = "platform.run"
    value = var.run_id
  }
}

# It answers for every name there is (its zone is the root), so that it need not know which ones the operator will
# choose; nobody but the run asks it. The cluster updates it (RFC 2136), and proves itself by the key.
resource "docker_container" "names" {
  name       = "platform-${var.run_id}-names"
  image      = var.machine_image
  entrypoint = ["/usr/sbin/named", "-f", "-n", "1", "-c", "/etc/platform/named.conf"]

  upload {
    file    = "/etc/platform/named.conf"
    content = <<-EOT
      key "platform" { algorithm hmac-sha256; secret "${var.name_key}"; };
      options { directory "/var/cache/bind"; recursion no; listen-on-v6 { none; }; dnssec-validation no; };
      controls { };
      zone "." { type primary; file "root.zone"; allow-update { key "platform"; }; notify no; };
    EOT
  }
  upload {
    file    = "/var/cache/bind/root.zone"
    content = <<-EOT
      $TTL 5
      @ SOA ns. operator. ( 1 60 60 60 5 )
      @ NS ns.
      ns. A ${local.names}
    EOT
  }

  networks_advanced {
    name         = docker_network.cluster.name
    ipv4_address = local.names
  }

  labels {
    label = "platform.run"
    value = var.run_id
  }
}
