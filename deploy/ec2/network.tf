# A network of its own: nothing else stands in it, its addresses are known beforehand, and destroying
# it leaves nothing. One subnet, with a way to the internet for packages, images and the source.

resource "aws_vpc" "stampede" {
  cidr_block           = local.network
  enable_dns_hostnames = true

  tags = {
    Name = var.name
  }
}

resource "aws_subnet" "stampede" {
  vpc_id            = aws_vpc.stampede.id
  cidr_block        = local.network
  availability_zone = var.availability_zone

  tags = {
    Name = var.name
  }
}

resource "aws_internet_gateway" "stampede" {
  vpc_id = aws_vpc.stampede.id

  tags = {
    Name = var.name
  }
}

resource "aws_route_table" "stampede" {
  vpc_id = aws_vpc.stampede.id

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.stampede.id
  }

  tags = {
    Name = var.name
  }
}

resource "aws_route_table_association" "stampede" {
  subnet_id      = aws_subnet.stampede.id
  route_table_id = aws_route_table.stampede.id
}

# The fence, which Docker's published ports rely on.

resource "aws_security_group" "machines" {
  name        = "${var.name}-machines"
  description = "Machines of Stampede: to one another, and to SSH from one network"
  vpc_id      = aws_vpc.stampede.id
}

resource "aws_security_group" "gateway" {
  name        = "${var.name}-gateway"
  description = "The gateway of Stampede, from one network"
  vpc_id      = aws_vpc.stampede.id
}

# TCP alone: Redis, MySQL, Kafka, gRPC and HTTP need no more.
resource "aws_vpc_security_group_ingress_rule" "one_another" {
  security_group_id            = aws_security_group.machines.id
  description                  = "The machines of this layout"
  referenced_security_group_id = aws_security_group.machines.id
  ip_protocol                  = "tcp"
  from_port                    = 0
  to_port                      = 65535
}

# Without a key pair there is nothing to let in: Session Manager calls from the inside.
resource "aws_vpc_security_group_ingress_rule" "ssh" {
  count = var.key_name == null ? 0 : 1

  security_group_id = aws_security_group.machines.id
  description       = "SSH"
  cidr_ipv4         = var.allowed_cidr
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
}

resource "aws_vpc_security_group_ingress_rule" "gateway" {
  security_group_id = aws_security_group.gateway.id
  description       = "The gateway"
  cidr_ipv4         = var.allowed_cidr
  ip_protocol       = "tcp"
  from_port         = var.gateway_port
  to_port           = var.gateway_port
}

resource "aws_vpc_security_group_egress_rule" "out" {
  security_group_id = aws_security_group.machines.id
  description       = "Packages, images and the source"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}
