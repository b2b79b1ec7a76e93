output "discovery-service" {
  description = "What bin/use-new-discovery-url asks for a new discovery URL."
  value       = "http://${local.discovery}:2379/v2/keys/discovery"
}

output "image-registry" {
  description = "HOST:PORT of the registry."
  value       = "${local.registry}:5000"
}

output "name-server" {
  description = "Address of the name server (port 53)."
  value       = local.names
}
