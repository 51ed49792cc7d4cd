#!/usr/bin/env bash
# Where there is more than one machine: hands each secret from the mesh's machine, which made it, to the one that
# needs it, through your ssh, and starts what waits for it. Run it on your machine after `tofu apply`; run again, it
# changes nothing.
#
#   deploy/ec2/hand-over.sh [OPTION OF SSH...]      such as -i ~/.ssh/sale.pem
#
# Nothing is written on your machine, and nothing of it gets into the state.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,/^set /s/^# \{0,1\}//p' "$(basename "${BASH_SOURCE[0]}")"
    exit
fi

ssh=(ssh -o StrictHostKeyChecking=accept-new "$@")

main() {
    local tofu lines servers="" mesh=""
    tofu=$(command -v tofu || command -v terraform) || fail "neither tofu nor terraform is here"
    lines=$("$tofu" output -raw hand_over) || fail "tofu has no outputs here: run tofu apply first"
    if [[ -z $lines ]]; then
        echo "one machine: there is nothing to hand over"
        return
    fi
    # A descriptor of its own: ssh would read the lines away.
    while read -r kind file from from_address to to_address <&3; do
        wait_for "$from" "$from_address"
        wait_for "$to" "$to_address"
        echo "$kind/$file: from $from to $to"
        hand_over "$kind" "$file" "$from_address" "$to_address"
        if [[ $to == servers ]]; then
            servers=$to_address mesh=$from_address
        fi
    done 3<<<"$lines"
    # The servers have all that they need now, and the mesh needs them.
    if [[ -n $servers ]]; then
        start servers "$servers"
        start mesh "$mesh"
    fi
    echo "all is handed over"
}

# The first boot builds the image, which takes its time. A machine that has just been made may refuse at first.
wait_for() {
    local name=$1 address=$2 tries=0 status=0
    until "${ssh[@]}" -n -o ConnectTimeout=10 "admin@$address" true; do
        ((tries += 1))
        ((tries < 30)) || fail "$name ($address) does not answer to ssh"
        sleep 5
    done
    echo "$name: waiting for its first boot to end"
    "${ssh[@]}" -n "admin@$address" "cloud-init status --wait >/dev/null" || status=$?
    # 2: it ended, with warnings.
    ((status == 0 || status == 2)) ||
        fail "the first boot of $name failed: ssh admin@$address sudo tail /var/log/cloud-init-output.log"
}

# As an archive, which keeps owner and rights. The volume is made as compose would, which then takes it for its own.
# Moved into place whole, since its name is what the servers wait for.
hand_over() {
    local file=$2 from=$3 to=$4 volume=stampede_$1-secrets
    "${ssh[@]}" -n "admin@$from" "set -eu
        folder=\$(sudo docker volume inspect --format '{{.Mountpoint}}' $volume)
        sudo tar --create --numeric-owner --directory \"\$folder\" $file" |
        "${ssh[@]}" "admin@$to" "set -eu
        sudo docker volume create --label com.docker.compose.project=stampede \
            --label com.docker.compose.volume=$1-secrets $volume >/dev/null
        folder=\$(sudo docker volume inspect --format '{{.Mountpoint}}' $volume)
        sudo mkdir -p -m 0700 \"\$folder/.incoming\"
        sudo tar --extract --numeric-owner --preserve-permissions --directory \"\$folder/.incoming\"
        sudo mv -f \"\$folder/.incoming/$file\" \"\$folder/$file\"
        sudo rmdir \"\$folder/.incoming\""
}

# Returns when all of it is healthy.
start() {
    echo "$1: starting"
    "${ssh[@]}" -n "admin@$2" sudo systemctl start stampede.service ||
        fail "$1 did not start: ssh admin@$2 sudo journalctl -u stampede"
}

fail() {
    echo "hand-over: $1" >&2
    exit 1
}

main
