# Which machines a layout has, and what each of them is told at its first boot. Nothing here asks
# AWS anything, so that check.sh can read it without a cloud.

locals {
  three = var.layout == "three"

  # There is always one way to a shell.
  session_manager = var.session_manager || var.key_name == null

  # Addresses are fixed, so that a machine can be told those of others before they exist.
  network = "10.77.0.0/24"
  address = {
    mesh    = cidrhost(local.network, 10)
    servers = cidrhost(local.network, 11)
    load    = cidrhost(local.network, 12)
  }

  redis_port = 7379
  mysql_port = 7306
  kafka_port = 7092

  # Settings take the place of lines of deploy/compose/.env. Those say to build the image where there
  # is none of its name.
  image = var.image == null ? {} : { COMPOSE_FILE = "compose.yaml", STAMPEDE_IMAGE = var.image }

  # Ports are published to all addresses of a machine: the security groups are the fence. Buyers have
  # the time to pay that examples/rush.toml expects.
  gateway = {
    STAMPEDE_BIND_ADDRESS  = "0.0.0.0"
    GATEWAY_PORT           = var.gateway_port
    STAMPEDE_PAY_WINDOW_MS = 300000
  }
  servers = {
    SERVERS_BIND_ADDRESS  = "0.0.0.0"
    REDIS_PORT            = local.redis_port
    MYSQL_PORT            = local.mysql_port
    KAFKA_PORT            = local.kafka_port
    KAFKA_ADVERTISED_HOST = local.address.servers
  }
  elsewhere = {
    REDIS_HOST    = "${local.address.servers}:${local.redis_port}"
    MYSQL_HOST    = "${local.address.servers}:${local.mysql_port}"
    KAFKA_BROKERS = "${local.address.servers}:${local.kafka_port}"
  }

  machines = merge(
    {
      mesh = {
        role     = local.three ? "mesh" : "all"
        type     = var.mesh_type
        settings = merge(local.image, local.gateway, local.three ? local.elsewhere : {})
      }
    },
    local.three ? {
      servers = {
        role     = "servers"
        type     = var.servers_type
        settings = local.servers
      }
    } : {},
    local.three || var.load ? {
      load = {
        role = "load"
        type = var.load_type
        settings = merge(local.image, {
          STAMPEDE_GATEWAY_URL = "http://${local.address.mesh}:${var.gateway_port}"
        })
      }
    } : {},
  )

  # The script is plain bash; what differs stands in front of it. It is no place for a secret: it
  # is kept in the state, and whoever may describe the instance may read it.
  user_data = {
    for name, machine in local.machines : name => join("\n", [
      "#!/bin/bash",
      "ROLE='${machine.role}'",
      "SOURCE_REPOSITORY='${var.source_repository}'",
      "SOURCE_REF='${var.source_ref}'",
      "SESSION_MANAGER_REGION='${local.session_manager ? var.region : ""}'",
      "SETTINGS='${join("\n", [for key, value in machine.settings : "${key}=${value}"])}'",
      "",
      file("${path.module}/user-data.sh"),
    ])
  }
}

# What a developer runs at home, against the machine of the mesh.
locals {
  run_load = <<-EOT
    cd /opt/stampede/deploy/compose
    export COMPOSE_FILE=${var.image == null ? "compose.yaml:compose.build.yaml" : "compose.yaml"}:compose.load.yaml
    docker compose run --rm -e STAMPEDE_GATEWAY_URL rush

    cd /opt/stampede
    export STAMPEDE_AUTH_SECRET=$(sudo cat /var/lib/docker/volumes/stampede_auth-secrets/_data/secret)
    export STAMPEDE_MESH_SECRET=$(sudo cat /var/lib/docker/volumes/stampede_mesh-secrets/_data/secret)
    cargo xtask bench ghz --target ${local.address.mesh}:${var.gateway_port}
    cargo xtask bench jmeter --target ${local.address.mesh}:${var.gateway_port}
  EOT
}
