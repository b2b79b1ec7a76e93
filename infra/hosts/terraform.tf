# No provider: terraform_data is built in.
terraform {
  required_version = ">= 1.9"
}
