# The machines. What they are is decided in machines.tf.

# Debian 13 as Debian itself publishes it. The year in the name leaves daily builds out.
data "aws_ami" "debian" {
  owners      = ["136693071363"]
  most_recent = true

  filter {
    name   = "name"
    values = ["debian-13-amd64-2*"]
  }

  filter {
    name   = "architecture"
    values = ["x86_64"]
  }

  filter {
    name   = "virtualization-type"
    values = ["hvm"]
  }
}

resource "aws_instance" "machine" {
  for_each = local.machines

  ami                         = data.aws_ami.debian.id
  instance_type               = each.value.type
  key_name                    = var.key_name
  iam_instance_profile        = one(aws_iam_instance_profile.session_manager[*].name)
  subnet_id                   = aws_subnet.stampede.id
  private_ip                  = local.address[each.key]
  associate_public_ip_address = true

  vpc_security_group_ids = concat(
    [aws_security_group.machines.id],
    each.key == "mesh" ? [aws_security_group.gateway.id] : [],
  )

  # The script runs at the first boot alone. Without this, a change of it would stop and start the
  # machine, and do nothing else.
  user_data                   = local.user_data[each.key]
  user_data_replace_on_change = true

  # The hop limit keeps containers from the metadata: theirs is one hop more.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_type           = "gp3"
    volume_size           = var.disk_gib
    encrypted             = true
    delete_on_termination = true
  }

  tags = {
    Name = "${var.name}-${each.key}"
  }

  # The data is on the root volume: a newer image of Debian is no reason to throw it away.
  lifecycle {
    ignore_changes = [ami]
  }

  # The first boot fetches packages and the source.
  depends_on = [
    aws_route_table_association.stampede,
    aws_vpc_security_group_egress_rule.out,
  ]
}
