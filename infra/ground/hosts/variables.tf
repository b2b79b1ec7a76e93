variable "run_id" {
  type        = string
  description = "Names everything this run makes."
}

variable "machine_image" {
  type        = string
  description = "Folder with `prepare`, which tells whether a host can become a machine."
}

variable "archive" {
  type        = string
  description = "Absolute path of a tar archive: etcd, docker-registry, its registry.yml, and `registry`, its storage."
}

variable "target_folder" {
  type        = string
  description = "Absolute path of the target's root module, beside whose variables a relative known_hosts lies."
}

variable "discovery_service" {
  type        = string
  description = "The discovery service that is given; empty: one is made on the first host."
}

variable "image_registry" {
  type        = string
  description = "HOST:PORT of the registry that is given; empty: one is made on the first host."
}

variable "name_server" {
  type        = string
  description = "Address of the name server that is given; empty: there is none."
}

# As the target has them, see infra/hosts/variables.tf.

variable "hosts" {
  type        = list(string)
  description = "Addresses of the hosts; the first one gets the services."
}

variable "user" {
  type        = string
  description = "Who logs in on the hosts, and has sudo that asks no password."
}

variable "known_hosts" {
  type        = string
  description = "File with the hosts' public keys."
  default     = "known_hosts"
}

variable "key_file" {
  type        = string
  description = "File with the private key that the user logs in with; empty: a key of the ssh-agent."
  default     = ""
}
