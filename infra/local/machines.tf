# The ground made the network; its name and subnet are all this target knows of it.
data "docker_network" "ground" {
  name = "platform-${var.run_id}"
}

locals {
  ipam = one(data.docker_network.ground.ipam_config)

  # coreos-0, coreos-1, ... each with its address. Named, not counted: losing one must not shift the others.
  # The first ten addresses belong to the gateway and the ground.
  machines = { for index in range(var.machines) : "coreos-${index}" => cidrhost(local.ipam.subnet, 10 + index) }

  # All of the network but the gateway, which is the outside: the operator and beyond
  peers = "${cidrhost(local.ipam.subnet, 2)}-${cidrhost(local.ipam.subnet, -2)}"

  # As many as etcd has members: more would carry no more, for each of them stands for all of the cluster.
  entry_points = [for index in range(min(var.machines, 5)) : "coreos-${index}"]

  # Where many machines share a processor each of them is slower, and is not to be taken for a lost one: from more than
  # four a processor on all time limits inside the machines are twice as long, from more than eight on three times...
  crowd = ceil(var.machines / (4 * var.processors))

  # Files for /home/core, as the first boot unpacks them: MODE PATH CONTENTS-IN-BASE64
  helpers_folder = "${path.module}/../../container"
  helpers = [for file in fileset(local.helpers_folder, "**") : join(" ", [
    endswith(file, ".sh") ? 755 : 644, file, filebase64("${local.helpers_folder}/${file}")
  ])]

  user_data = { for name, address in local.machines : name => <<-EOT
    #!/bin/sh
    MACHINE='${name}'
    ADDRESS='${address}'
    MACHINES='${join(" ", [for name, address in local.machines : "${name}=${address}"])}'
    ENTRY='${contains(local.entry_points, name) ? "yes" : "no"}'
    PATIENCE='${ceil(var.patience) * local.crowd}'
    DISCOVERY_URL='${var.discovery_url}'
    IMAGE_REGISTRY='${var.image_registry}'
    PEERS='${local.peers}'
    BLOG_DOMAIN='${var.blog_domain}'
    JPBLOG_DOMAIN='${var.jpblog_domain}'
    NAME_SERVER='${var.name_server}'
    NAME_KEY='${var.name_key}'
    AUTHORIZED_KEY='${trimspace(var.ssh_public_key)}'
    HOST_KEY='${trimspace(var.ssh_host_keys[name].private)}'
    HOST_KEY_PUBLIC='${trimspace(var.ssh_host_keys[name].public)}'
    HELPERS='${join("\n", local.helpers)}'
    ${file("${path.module}/../first-boot")}
    EOT
  }
}

# As many machines as the cluster was made with, five at most, are etcd's members for good: one that is made later is none.
resource "terraform_data" "etcd_members" {
  input = min(var.machines, 5)

  lifecycle {
    ignore_changes = [input]
  }
}

resource "docker_container" "machine" {
  for_each = local.machines

  name          = "platform-${var.run_id}-${each.key}"
  hostname      = each.key
  image         = var.machine_image
  cgroupns_mode = "private"

  # What systemd and Docker need, no more. Not "privileged": that asks for SYS_RESOURCE, which some hosts cannot
  # give, and SYS_TIME, which would set the clock of the host.
  capabilities {
    add = [
      "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID",
      "CAP_IPC_LOCK", "CAP_KILL", "CAP_LEASE", "CAP_MKNOD", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW",
      "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
    ]
    drop = ["ALL"]
  }
  security_opts = ["seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"]

  # Sized, and gone with the container: the nested engine's images and containers need no volume that could stay.
  tmpfs = {
    "/run"            = "rw,exec,mode=755,size=256m"
    "/tmp"            = "rw,mode=1777,size=256m"
    "/var/lib/docker" = "rw,exec,dev,suid,mode=711,size=2g"
  }

  networks_advanced {
    name         = data.docker_network.ground.name
    ipv4_address = each.value
  }

  # What a cloud would hand over as user data. One file: each costs the engine a process of its own.
  upload {
    file        = "/var/lib/platform/user-data"
    content     = local.user_data[each.key]
    permissions = "0700" # the host key is in it
  }
  # Not in the user data: systemd wants it before it starts anything.
  env = ["MACHINE_ID=${md5("${var.run_id}/${each.key}")}"]

  labels {
    label = "platform.run"
    value = var.run_id
  }

  lifecycle {
    # The engine obeys systempaths=unconfined but does not report it. And a new discovery URL or helper file is for
    # machines yet to be made: it must never make Terraform replace those that stand.
    ignore_changes = [security_opts, upload]
  }
}
