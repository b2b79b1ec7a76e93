output "entrypoint-ip" {
  description = "Address of the machine through which the operator and the readers come in."
  value       = local.entrypoint
}

output "entry-points" {
  description = "Names of the machines that are entry points, through any of which the readers may come in."
  value       = local.entry_points
}

output "machines" {
  description = "Name of each machine => its address inside the cluster."
  value       = local.machines

  precondition {
    condition     = var.machines >= terraform_data.etcd_members.output
    error_message = "machines = ${var.machines} would take members out of etcd: the cluster was made with ${terraform_data.etcd_members.output}, and keeps as many."
  }
  precondition {
    condition     = alltrue([for name, address in local.machines : terraform_data.machine[name].output == address])
    error_message = "A machine keeps its address: hosts must begin with those that are machines already, in their order (${join(", ", [for name, machine in terraform_data.machine : "${name} is ${machine.output}"])})."
  }
}

output "ssh-user" {
  description = "Who logs in on a machine."
  value       = "core"
}

output "known-hosts" {
  description = "The machines' public host keys as lines of a known_hosts file."
  value = join("", concat([
    for name, address in local.machines :
    join("", [for key in local.host_keys[address] : "${address} ${key}\n"])
    ], [
    # a fixed address leads to any of the entry points
    for name in contains(values(local.machines), local.entrypoint) ? [] : local.entry_points :
    join("", [for key in local.host_keys[local.machines[name]] : "${local.entrypoint} ${key}\n"])
  ]))
}

output "ssh-config" {
  description = "How ssh reaches the machines by their names: an ssh_config file, beside one of the known-hosts."
  value = join("", concat(
    [for name, address in local.machines : "Host ${name}\n    HostName ${address}\n"],
    ["Host *\n    User core\n    UserKnownHostsFile known_hosts\n    StrictHostKeyChecking yes\n    ConnectTimeout 5\n"],
  ))
}

output "sites" {
  description = "Name of each site => its host name."
  value       = { blog = var.blog_domain, jpblog = var.jpblog_domain }
}

output "name-server" {
  description = "Address of the name server that knows the sites' host names; empty where there is none of the cluster's own."
  value       = var.name_server
}
