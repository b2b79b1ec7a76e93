provider "docker" {}
