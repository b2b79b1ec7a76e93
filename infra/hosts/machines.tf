locals {
  # coreos-0, coreos-1, ... each with its address. Named, not counted: losing one must not shift the others.
  machines = { for index in range(min(var.machines, length(var.hosts))) : "coreos-${index}" => var.hosts[index] }

  # As many as etcd has members: more would carry no more, for each of them stands for all of the cluster.
  entry_points = [for index in range(min(var.machines, 5)) : "coreos-${index}"]
  entrypoint   = var.entrypoint_ip != "" ? var.entrypoint_ip : local.machines["coreos-0"]

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
    PATIENCE='${ceil(var.patience)}'
    DISCOVERY_URL='${var.discovery_url}'
    IMAGE_REGISTRY='${var.image_registry}'
    PEERS='${join(", ", values(local.machines))}'
    BLOG_DOMAIN='${var.blog_domain}'
    JPBLOG_DOMAIN='${var.jpblog_domain}'
    NAME_SERVER='${var.name_server}'
    NAME_KEY='${var.name_key}'
    AUTHORIZED_KEY='${trimspace(var.ssh_public_key)}'
    HOST_KEY=''
    HOST_KEY_PUBLIC=''
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

# Every host is looked at before anything is changed on any. What stands below is made again when this is: a host that
# was installed anew becomes the machine that it was by -replace of this.
resource "terraform_data" "looked_at" {
  for_each = local.machines

  # ssh says why it does not come in, where Terraform's own would try for a minute and say that a handshake failed
  provisioner "local-exec" {
    command = "${path.module}/look ${var.user} ${each.value}"
    environment = {
      KNOWN_HOSTS = abspath(local.known_hosts_file)
      KEY_FILE    = local.key_file
      PREPARE     = "${var.machine_image}/prepare"
      IDS         = local.machine_ids
      RUN_ID      = var.run_id
    }
  }

  lifecycle {
    precondition {
      condition     = fileexists(local.known_hosts_file)
      error_message = "There is no file ${local.known_hosts_file}: write it by `ssh-keyscan ${join(" ", values(local.machines))}`, and compare the fingerprints."
    }
    precondition {
      condition     = length(local.host_keys[each.value]) > 0
      error_message = "${local.known_hosts_file} has no key of ${each.value} (hashed lines do not count): add what `ssh-keyscan ${each.value}` says, and compare the fingerprints."
    }
    precondition {
      condition     = var.trusted_network || can(regex(local.private_address, each.value))
      error_message = "${each.value} is a public address: what etcd, fleet and the blogs say to each other is neither encrypted nor authenticated. Give the hosts private addresses, or trusted_network = true."
    }
    precondition {
      condition     = fileexists("${var.machine_image}/prepare")
      error_message = "machine_image = ${var.machine_image} is no folder with all that a host lacks."
    }
  }
}

# Nor is anything changed on any where two are copies of one.
resource "terraform_data" "told_apart" {
  triggers_replace = [for name in keys(local.machines) : terraform_data.looked_at[name].id]

  provisioner "local-exec" {
    command     = "${path.module}/look-alike ${join(" ", values(local.machines))}"
    environment = { IDS = local.machine_ids }
  }
}

# What gives a host back stands before anything is changed there, and cannot fail when it is made: Terraform destroys
# what is tainted without its provisioners.
resource "terraform_data" "given_back" {
  for_each = local.machines

  input = {
    host     = each.value
    user     = var.user
    key_file = local.key_file
    host_key = local.pinned[each.value]
    run_id   = var.run_id
  }

  connection {
    host        = self.output.host
    user        = self.output.user
    private_key = self.output.key_file == "" ? null : file(self.output.key_file)
    host_key    = self.output.host_key
    timeout     = "1m"
    script_path = "/tmp/platform-${self.output.run_id}-%RAND%.sh"
  }
  provisioner "remote-exec" {
    when = destroy
    inline = [
      "set -e",
      "bundle=/var/lib/platform-bundle",
      "[ ! -e $bundle/prepare ] || sudo RUN_ID='${self.output.run_id}' $bundle/prepare give-back",
      "sudo rm -rf $bundle /tmp/platform-${self.output.run_id}-*.sh",
    ]
  }

  depends_on = [terraform_data.told_apart]
}

# That a host is a machine of this cluster, and where. Never made again.
resource "terraform_data" "machine" {
  for_each = local.machines

  input = each.value

  lifecycle {
    ignore_changes = [input]
  }
  depends_on = [terraform_data.given_back]
}

# A connection that breaks taints one of the following, and its repetition harms nobody: what is there already stays.
resource "terraform_data" "prepared" {
  for_each = local.machines

  connection {
    host        = each.value
    user        = var.user
    private_key = local.private_key
    host_key    = local.pinned[each.value]
    timeout     = local.patience
    script_path = local.script
  }
  provisioner "remote-exec" {
    inline = ["sudo install -d -m 700 -o ${var.user} ${local.bundle}"]
  }
  provisioner "file" {
    source      = "${var.machine_image}/bundle.tar"
    destination = "${local.bundle}/bundle.tar"
  }
  provisioner "remote-exec" {
    inline = [
      "set -e",
      "sudo tar -xf ${local.bundle}/bundle.tar -C ${local.bundle} --no-same-owner",
      "rm ${local.bundle}/bundle.tar",
      "sudo RUN_ID='${var.run_id}' ${local.bundle}/prepare install",
    ]
  }

  lifecycle {
    replace_triggered_by = [terraform_data.looked_at[each.key]]
  }
  depends_on = [terraform_data.given_back, terraform_data.machine]
}

# Whom each machine lets in: the others. Told anew to all when a machine comes or goes, before that boots.
resource "terraform_data" "peers" {
  for_each = local.machines

  triggers_replace = values(local.machines)

  connection {
    host        = each.value
    user        = var.user
    private_key = local.private_key
    host_key    = local.pinned[each.value]
    timeout     = local.patience
    script_path = local.script
  }
  provisioner "remote-exec" {
    inline = ["sudo RUN_ID='${var.run_id}' ${local.bundle}/prepare peers ${join(" ", values(local.machines))}"]
  }

  lifecycle {
    replace_triggered_by = [terraform_data.prepared[each.key]]
  }
  depends_on = [terraform_data.prepared]
}

resource "terraform_data" "booted" {
  for_each = local.machines

  connection {
    host        = each.value
    user        = var.user
    private_key = local.private_key
    host_key    = local.pinned[each.value]
    timeout     = local.patience
    script_path = local.script
  }
  provisioner "file" {
    content     = local.user_data[each.key]
    destination = "${local.bundle}/user-data"
  }
  provisioner "remote-exec" {
    inline = [
      "set -e",
      "sudo install -D -m 700 ${local.bundle}/user-data /var/lib/platform/user-data",
      "rm ${local.bundle}/user-data",
      "sudo RUN_ID='${var.run_id}' ${local.bundle}/prepare boot",
    ]
  }

  lifecycle {
    replace_triggered_by = [terraform_data.prepared[each.key]]
  }
  depends_on = [terraform_data.peers]
}
