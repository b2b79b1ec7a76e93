output "discovery-service" {
  description = "What bin/use-new-discovery-url asks for a new discovery URL."
  value       = var.discovery_service != "" ? var.discovery_service : "http://${local.host}:4379/v2/keys/discovery"
}

output "image-registry" {
  description = "HOST:PORT of the registry."
  value       = var.image_registry != "" ? var.image_registry : "${local.host}:5000"
}

output "name-server" {
  description = "Address of the name server (port 53); empty where there is none."
  value       = var.name_server
}
