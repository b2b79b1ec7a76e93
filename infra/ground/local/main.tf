# What must stand before the runbook's third step: a network, a discovery service, an image registry.
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
