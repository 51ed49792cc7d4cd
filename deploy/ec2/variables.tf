# What the operator decides. allowed_cidr and source_repository have no default, because none would be
# right for anybody.

variable "layout" {
  description = "one: all on one machine. three: the mesh, its servers and the load on a machine each."
  type        = string
  default     = "one"
  nullable    = false

  validation {
    condition     = contains(["one", "three"], var.layout)
    error_message = "layout is \"one\" or \"three\"."
  }
}

variable "load" {
  description = "In layout one: add a machine for load generators. Layout three has one anyway."
  type        = bool
  default     = false
  nullable    = false
}

variable "allowed_cidr" {
  description = "The only addresses that reach SSH and the gateway, as an IPv4 CIDR: 203.0.113.7/32 is one address."
  type        = string
  nullable    = false

  validation {
    condition     = can(cidrnetmask(var.allowed_cidr))
    error_message = "allowed_cidr is an IPv4 CIDR such as 203.0.113.7/32."
  }

  # AWS refuses it too, but late, in the middle of the work.
  validation {
    condition     = !can(cidrnetmask(var.allowed_cidr)) || try(cidrhost(var.allowed_cidr, 0) == split("/", var.allowed_cidr)[0], false)
    error_message = "allowed_cidr has bits set behind its mask: it begins with the first address of the network."
  }

  # Two halves of the world are the world, so the rule is about the width and not about 0.0.0.0/0 alone.
  validation {
    condition     = !can(cidrnetmask(var.allowed_cidr)) || try(tonumber(split("/", var.allowed_cidr)[1]) >= 8, false)
    error_message = "allowed_cidr would let the world in: Stampede here speaks plain HTTP and is a test system. Give your own network, at most a /8; your address alone is ADDRESS/32."
  }
}

variable "source_repository" {
  description = "Where the machines fetch Stampede from: an https:// git URL that needs no password."
  type        = string
  nullable    = false

  # The URL is in the state and in the user data, so a token in it would be too. No quote can end the
  # string that it stands in there.
  validation {
    condition     = can(regex("^https://[A-Za-z0-9][A-Za-z0-9._:/~-]*$", var.source_repository))
    error_message = "source_repository is an https:// git URL without a user, a password or a token in it."
  }
}

variable "source_ref" {
  description = "The branch, tag or full commit to fetch."
  type        = string
  default     = "main"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._/-]*$", var.source_ref))
    error_message = "source_ref is a branch, a tag or a full commit."
  }
}

variable "image" {
  description = "The image to pull, such as registry.example/stampede:0.1.0. null: each machine that needs it builds it from the source."
  type        = string
  default     = null

  validation {
    condition     = var.image == null || can(regex("^[a-z0-9][A-Za-z0-9._:/@-]*$", var.image))
    error_message = "image is the name of an image, such as registry.example/stampede:0.1.0."
  }
}

variable "key_name" {
  description = "An EC2 key pair that is in the region already: it opens SSH. Its private half is never seen here. null: no SSH, and Session Manager in its place."
  type        = string
  default     = null
}

variable "session_manager" {
  description = "With a key pair: install the agent of AWS Systems Manager too, so that `aws ssm start-session` opens a shell."
  type        = bool
  default     = false
  nullable    = false
}

variable "region" {
  description = "The AWS region."
  type        = string
  default     = "us-east-1"
  nullable    = false
}

variable "availability_zone" {
  description = "Where in the region. null: AWS chooses."
  type        = string
  default     = null
}

variable "name" {
  description = "How everything that is made here is called, so that two can stand side by side."
  type        = string
  default     = "stampede"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,30}$", var.name))
    error_message = "name has at most 31 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "mesh_type" {
  description = "The machine of the gateway and the services; in layout one of the servers too."
  type        = string
  default     = "m7i.xlarge"
  nullable    = false
}

variable "servers_type" {
  description = "The machine of Redis, MySQL and Kafka in layout three."
  type        = string
  default     = "m7i.xlarge"
  nullable    = false
}

variable "load_type" {
  description = "The machine of the load generators."
  type        = string
  default     = "c7i.xlarge"
  nullable    = false
}

variable "disk_gib" {
  description = "The disk of each machine, in GiB. Building the image takes about ten of them."
  type        = number
  default     = 40
  nullable    = false

  validation {
    condition     = var.disk_gib >= 20 && var.disk_gib <= 1000
    error_message = "disk_gib is between 20 and 1000."
  }
}

variable "gateway_port" {
  description = "The port of the gateway."
  type        = number
  default     = 8080
  nullable    = false

  validation {
    condition     = var.gateway_port == floor(var.gateway_port) && var.gateway_port > 0 && var.gateway_port < 65536 && var.gateway_port != 22
    error_message = "gateway_port is a port, and not that of SSH."
  }
}
