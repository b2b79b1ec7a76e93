# What must stand before the runbook's third step, where it is not given: a discovery service and an image registry, on
# the first host. They bring their own programs: what makes the host a machine, or gives it back, is not theirs.
locals {
  host             = var.hosts[0]
  made             = compact([var.discovery_service == "" ? "discovery" : "", var.image_registry == "" ? "registry" : ""])
  folder           = "/var/lib/platform-ground"
  script           = "/tmp/platform-ground-${var.run_id}-%RAND%.sh" # one is left when a connection breaks
  key_file         = var.key_file == "" ? "" : abspath(pathexpand(var.key_file))
  known_hosts_file = startswith(var.known_hosts, "/") ? var.known_hosts : "${var.target_folder}/${var.known_hosts}"

  # all keys of the host, behind whose address Terraform writes them into a file of the known_hosts form
  known = [
    for line in split("\n", file(local.known_hosts_file)) : split(" ", replace(trimspace(line), "/[ \t]+/", " "))
  ]
  host_key = join("\n${local.host} ", [
    for words in local.known : "${words[1]} ${words[2]}" if length(words) >= 3 && contains(split(",", words[0]), local.host)
  ])

  # its peers are nobody; the registry serves what its storage held when it was brought here
  units = {
    discovery = <<-EOT
      [Unit]
      Description=Discovery service of a platform's cluster
      After=network.target
      [Service]
      DynamicUser=yes
      StateDirectory=platform-discovery
      ExecStart=${local.folder}/etcd --name=discovery --data-dir=/var/lib/platform-discovery --enable-v2 \
        --listen-client-urls=http://0.0.0.0:4379 --advertise-client-urls=http://${local.host}:4379 \
        --listen-peer-urls=http://127.0.0.1:4380
      Restart=always
      RestartSec=3
      [Install]
      WantedBy=multi-user.target
    EOT
    registry  = <<-EOT
      [Unit]
      Description=Image registry of a platform's cluster
      After=network.target
      [Service]
      DynamicUser=yes
      Environment=REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=${local.folder}/registry
      ExecStart=${local.folder}/docker-registry serve ${local.folder}/registry.yml
      Restart=always
      RestartSec=3
      [Install]
      WantedBy=multi-user.target
    EOT
  }
}

# Every host is looked at before anything is changed on any.
resource "terraform_data" "looked_at" {
  for_each = toset(var.hosts)

  provisioner "local-exec" {
    command = "${var.target_folder}/look ${var.user} ${each.value}"
    environment = {
      KNOWN_HOSTS = abspath(local.known_hosts_file)
      KEY_FILE    = local.key_file
      PREPARE     = "${var.machine_image}/prepare"
      IDS         = "${var.target_folder}/.machine-ids"
      RUN_ID      = var.run_id
    }
  }
}

resource "terraform_data" "told_apart" {
  triggers_replace = [for host in var.hosts : terraform_data.looked_at[host].id]

  provisioner "local-exec" {
    command     = "${var.target_folder}/look-alike ${join(" ", var.hosts)}"
    environment = { IDS = "${var.target_folder}/.machine-ids" }
  }
}

# Made first, and with nothing that could fail: what is tainted is destroyed without its provisioners.
resource "terraform_data" "removed" {
  count = length(local.made) > 0 ? 1 : 0

  input = {
    host     = local.host
    user     = var.user
    key_file = local.key_file
    host_key = local.host_key
    script   = local.script
    run_id   = var.run_id
  }

  connection {
    host        = self.output.host
    user        = self.output.user
    private_key = self.output.key_file == "" ? null : file(self.output.key_file)
    host_key    = self.output.host_key
    timeout     = "1m"
    script_path = self.output.script
  }
  provisioner "remote-exec" {
    when = destroy
    inline = [
      "set -e",
      "cd /etc/systemd/system",
      "for unit in $(ls platform-discovery.service platform-registry.service 2>/dev/null); do sudo systemctl disable --quiet --now $unit; sudo rm $unit; done",
      "sudo systemctl daemon-reload",
      "sudo rm -rf /var/lib/platform-ground /var/lib/platform-discovery /var/lib/private/platform-discovery",
      "rm -f /tmp/platform-ground-${self.output.run_id}-*.sh",
    ]
  }

  depends_on = [terraform_data.told_apart]
}

resource "terraform_data" "services" {
  count = length(local.made) > 0 ? 1 : 0

  connection {
    host        = local.host
    user        = var.user
    private_key = local.key_file == "" ? null : file(local.key_file)
    host_key    = local.host_key
    timeout     = "1m"
    script_path = local.script
  }
  provisioner "remote-exec" {
    inline = ["sudo install -d -m 755 -o ${var.user} ${local.folder}"]
  }
  provisioner "file" {
    source      = var.archive
    destination = "${local.folder}/archive.tar"
  }
  provisioner "remote-exec" {
    inline = concat(
      ["set -e", "cd ${local.folder}", "sudo tar -xf archive.tar --no-same-owner", "rm archive.tar"],
      [for name in local.made : "echo '${base64encode(local.units[name])}' | base64 -d | sudo tee /etc/systemd/system/platform-${name}.service >/dev/null"],
      ["sudo systemctl daemon-reload"],
      [for name in local.made : "sudo systemctl enable --quiet platform-${name}.service"],
      [for name in local.made : "sudo systemctl restart platform-${name}.service"],
    )
  }

  depends_on = [terraform_data.removed]
}
