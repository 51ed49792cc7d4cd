# A shell without a key pair: what AWS Systems Manager needs, and nothing beyond it.

data "aws_iam_policy_document" "instances" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "session_manager" {
  count = local.session_manager ? 1 : 0

  name_prefix        = "${var.name}-"
  assume_role_policy = data.aws_iam_policy_document.instances.json
}

resource "aws_iam_role_policy_attachment" "session_manager" {
  count = local.session_manager ? 1 : 0

  role       = aws_iam_role.session_manager[0].name
  policy_arn = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_instance_profile" "session_manager" {
  count = local.session_manager ? 1 : 0

  name_prefix = "${var.name}-"
  role        = aws_iam_role.session_manager[0].name
}
