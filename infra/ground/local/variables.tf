variable "run_id" {
  type        = string
  description = "Names everything this run makes."
}

variable "subnet" {
  type        = string
  description = "The cluster's network in CIDR form, free on this machine."
}

variable "machine_image" {
  type        = string
  description = "The image that carries etcd and the registry: the machines' own."
}

variable "registry_storage" {
  type        = string
  description = "Absolute path of the registry's storage, filled when the images were built; mounted read-only."
}

variable "name_key" {
  type        = string
  description = "The secret (hmac-sha256, base64) by which the name server knows who may update it."
  sensitive   = true
}
