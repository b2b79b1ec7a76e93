variable "run_id" {
  type        = string
  description = "Names everything this run makes; the ground's network carries it too."

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

variable "processors" {
  type        = number
  description = "Processors of the machine that all machines run on."

  validation {
    condition     = var.processors >= 1 && floor(var.processors) == var.processors
    error_message = "processors must be a whole number, 1 or more."
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
  description = "What a machine boots from: here the tag of a local Docker image."
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
}

variable "name_key" {
  type        = string
  description = "The secret (hmac-sha256, base64) that the name server knows the cluster by."
  sensitive   = true
}

variable "ssh_public_key" {
  type        = string
  description = "The key that may log in as user core."
}

variable "ssh_host_keys" {
  type        = map(object({ private = string, public = string }))
  description = "SSH host keys by machine name (ed25519, OpenSSH format), made for the run."
  sensitive   = true

  validation {
    condition     = length(var.ssh_host_keys) >= var.machines
    error_message = "ssh_host_keys must hold a key for every machine."
  }
}
