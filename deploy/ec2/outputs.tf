# What the operator does next.

output "gateway_url" {
  description = "Where buyers go. A machine that was stopped gets another address: `tofu apply -refresh-only` tells it."
  value       = "http://${aws_instance.machine["mesh"].public_ip}:${var.gateway_port}"
}

output "ssh" {
  description = "A shell on each machine, by your key pair."
  value       = { for name, machine in aws_instance.machine : name => "ssh admin@${machine.public_ip}" if var.key_name != null }
}

output "session" {
  description = "A shell on each machine, by Session Manager."
  value       = { for name, machine in aws_instance.machine : name => "aws ssm start-session --region ${var.region} --target ${machine.id}" if local.session_manager }
}

output "hand_over" {
  description = "Read by hand-over.sh: a secret, the machine that has it, and the one that needs it."
  value = join("\n", concat(
    local.three ? [
      "database password mesh ${aws_instance.machine["mesh"].public_ip} servers ${aws_instance.machine["servers"].public_ip}",
      "redis-server users.acl mesh ${aws_instance.machine["mesh"].public_ip} servers ${aws_instance.machine["servers"].public_ip}",
    ] : [],
    contains(keys(local.machines), "load") ? [
      "auth secret mesh ${aws_instance.machine["mesh"].public_ip} load ${aws_instance.machine["load"].public_ip}",
      "mesh secret mesh ${aws_instance.machine["mesh"].public_ip} load ${aws_instance.machine["load"].public_ip}",
    ] : [],
  ))
}

output "load" {
  description = "How to run load, in a shell on the load machine."
  value       = contains(keys(local.machines), "load") ? local.run_load : "There is no load machine: set load = true."
}
