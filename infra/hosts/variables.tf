variable "run_id" {
  type        = string
  description = "Names everything this run makes; a host that is another run's is refused."

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{0,31}$", var.run_id))
    error_message = "run_id must be 1 to 32 of a-z, 0-9 and -, and not begin with -."
  }
}

variable "machines" {
  type        = number
  description = "Number of machines; fleet's authors advise 100 at most."
  default     = 3

  validation {
    condition     = var.machines >= 1 && var.machines <= 100 && floor(var.machines) == var.machines
    error_message = "machines must be a whole number from 1 to 100."
  }
  validation {
    condition     = var.machines <= length(var.hosts)
    error_message = "machines = ${var.machines}, and there are ${length(var.hosts)} hosts: give more in infra/hosts/hosts.auto.tfvars."
  }
}

variable "patience" {
  type        = number
  description = "How many times as long the time limits inside the machines are: 1, or more where machines are slow."
  default     = 1

  validation {
    condition     = var.patience >= 1 && var.patience <= 100
    error_message = "patience must be a number from 1 to 100."
  }
}

variable "discovery_url" {
  type        = string
  description = "Where the etcd members of this cluster meet; a new one for every new cluster."

  validation {
    condition     = can(regex("^https?://[^/ ]+/[^ ]+$", var.discovery_url))
    error_message = "discovery_url is not set: run ./bin/use-new-discovery-url first."
  }
}

variable "image_registry" {
  type        = string
  description = "HOST:PORT of the registry that the units take their images from."
}

variable "machine_image" {
  type        = string
  description = "What a machine boots from: here a folder with all that a host lacks, bundle.tar and prepare."
}

variable "blog_domain" {
  type        = string
  description = "Host name of the blog."
  default     = "genkisugimoto.com"

  validation {
    condition     = can(regex("^[a-z0-9-]+(\\.[a-z0-9-]+)+$", var.blog_domain))
    error_message = "blog_domain must be a host name in lower case, such as genkisugimoto.com."
  }
}

variable "jpblog_domain" {
  type        = string
  description = "Host name of the Japanese blog."
  default     = "jp.genkisugimoto.com"

  validation {
    condition     = can(regex("^[a-z0-9-]+(\\.[a-z0-9-]+)+$", var.jpblog_domain)) && var.jpblog_domain != var.blog_domain
    error_message = "jpblog_domain must be a host name in lower case, and not the blog's."
  }
}

variable "name_server" {
  type        = string
  description = "Address of the name server that the cluster tells where its entry point is; empty: the address is fixed."
  default     = ""
}

variable "name_key" {
  type        = string
  description = "The secret (hmac-sha256, base64) that the name server knows the cluster by."
  default     = ""
  sensitive   = true
}

variable "ssh_public_key" {
  type        = string
  description = "The key that may log in as user core."
}

# The target's own: they stand in hosts.auto.tfvars, see hosts.example.tfvars.

variable "hosts" {
  type        = list(string)
  description = "Addresses of the hosts: the first becomes coreos-0, the next coreos-1, ...; those beyond `machines` wait."

  validation {
    condition     = alltrue([for host in var.hosts : can(cidrhost("${host}/32", 0))])
    error_message = "hosts must be IPv4 addresses, such as 10.0.0.11."
  }
  validation {
    condition     = length(distinct(var.hosts)) == length(var.hosts)
    error_message = "hosts names an address twice."
  }
}

variable "user" {
  type        = string
  description = "Who logs in on the hosts, and has sudo that asks no password."

  validation {
    condition     = can(regex("^[a-z_][a-z0-9_-]*$", var.user)) && var.user != "core"
    error_message = "user must be the name of a user of the hosts, and not core: that one comes with the platform."
  }
}

variable "known_hosts" {
  type        = string
  description = "File with the hosts' public keys, as ssh-keyscan writes it; a relative path begins here."
  default     = "known_hosts"
}

variable "key_file" {
  type        = string
  description = "File with the private key that the user logs in with; empty: a key of the ssh-agent."
  default     = ""
}

variable "trusted_network" {
  type        = bool
  description = "Whether hosts with public addresses are taken: etcd, fleet and the blogs speak unencrypted between them."
  default     = false
}

variable "entrypoint_ip" {
  type        = string
  description = "Fixed address that leads to an entry point (a reserved one, a load balancer's); empty: the first machine's."
  default     = ""
}
