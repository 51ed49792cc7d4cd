#!/usr/bin/env bash
# Makes a fresh Debian 13 one of Stampede's machines. cloud-init runs it as root at the first boot and
# keeps what it prints in /var/log/cloud-init-output.log. Run again, it fetches the ref anew and changes
# nothing else.
#
# machines.tf puts what differs in front of it:
#   ROLE                    all, mesh, servers or load
#   SOURCE_REPOSITORY       a git URL that needs no password
#   SOURCE_REF              a branch, a tag or a full commit
#   SESSION_MANAGER_REGION  where the agent of Session Manager comes from; empty: it is not wanted
#   SETTINGS                NAME=value, a line each: what Docker Compose and the operator's shell are told
#
# No secret is in it or passes through it: compose makes them on the machine.
set -euo pipefail

: "${ROLE:?}" "${SOURCE_REPOSITORY:?}" "${SOURCE_REF:?}" "${SESSION_MANAGER_REGION?}" "${SETTINGS:?}"

readonly tree=/opt/stampede
# cloud-init gives no home, and Docker and git look for their settings there.
export HOME=/root
export DEBIAN_FRONTEND=noninteractive

main() {
    step install_packages
    step open_session_manager
    step fetch_source
    step write_settings
    step get_images
    step start_stampede
    say "this machine is ready"
}

# Named, so that the log says what a failure belongs to.
step() {
    say "$1"
    "$1"
}

say() {
    echo "stampede ($ROLE): ${1//_/ }"
}

# Networks fail at first boots. Two minutes of that are waited out.
retry() {
    local pause
    for pause in 5 15 30 60; do
        if "$@"; then
            return
        fi
        echo "failed, again in $pause s: $*" >&2
        sleep "$pause"
    done
    "$@"
}

# All of it is Debian's own. docker-compose is compose v2 there, as a plugin of docker-cli.
install_packages() {
    local packages=(ca-certificates curl git apparmor docker.io docker-cli docker-buildx docker-compose)
    if [[ $ROLE == load ]]; then
        # For `cargo xtask bench`: rustup fetches what rust-toolchain.toml names when cargo is first run.
        packages+=(rustup gcc g++ make libc6-dev)
    fi
    # A machine that has just booted may be updating itself.
    local wait=(-o DPkg::Lock::Timeout=300)
    retry apt-get "${wait[@]}" --quiet --error-on=any update
    retry apt-get "${wait[@]}" --quiet --yes --no-install-recommends install "${packages[@]}"
}

# Debian has no package of it; Amazon publishes one in each region.
open_session_manager() {
    if [[ -z $SESSION_MANAGER_REGION ]]; then
        return
    fi
    local region=$SESSION_MANAGER_REGION package=/var/tmp/amazon-ssm-agent.deb
    retry curl --fail --silent --show-error --location --output "$package" \
        "https://s3.$region.amazonaws.com/amazon-ssm-$region/latest/debian_amd64/amazon-ssm-agent.deb"
    dpkg --install "$package"
    rm "$package"
    systemctl enable --now amazon-ssm-agent.service
}

# By init and fetch, because a clone takes a branch or a tag, but no commit.
fetch_source() {
    git init --quiet "$tree"
    # A second run is root's in a tree that is the operator's.
    local git=(git -c "safe.directory=$tree" -C "$tree")
    retry "${git[@]}" fetch --quiet --depth 1 "$SOURCE_REPOSITORY" "$SOURCE_REF"
    "${git[@]}" checkout --quiet --force --detach FETCH_HEAD
    "${git[@]}" log -1 --format='%H %s'
    if [[ $ROLE == load ]] && id -u admin >/dev/null 2>&1; then
        # The operator builds in it.
        chown -R admin: "$tree"
    fi
}

# The unit reads them, and so does every login, so that the commands of a developer's machine work here.
write_settings() {
    printf '%s\n' "$SETTINGS" >/etc/stampede.env
    printf 'set -a\n. /etc/stampede.env\nset +a\n' >/etc/profile.d/stampede.sh
    if id -u admin >/dev/null 2>&1; then
        # Members of this group are as good as root; the operator has sudo without a password anyway.
        usermod --append --groups docker admin
    fi
}

# Here and not in the unit, which would have to wait for as long at any start. The servers of layout three
# need no image of ours: what makes secrets runs on the mesh's machine.
get_images() {
    # shellcheck source=/dev/null
    set -a && . /etc/stampede.env && set +a
    cd "$tree/deploy/compose"
    case $ROLE in
        all)
            retry docker compose pull --quiet redis mysql kafka
            get_own_image
            ;;
        servers) retry docker compose pull --quiet redis mysql kafka ;;
        mesh | load) get_own_image ;;
    esac
}

get_own_image() {
    if [[ -v STAMPEDE_IMAGE ]]; then
        retry docker compose pull --quiet secrets
    else
        # With its steps in the log: it takes minutes.
        retry docker compose --progress plain build
    fi
}

# In layout three the mesh's machine makes all secrets, and hand-over.sh brings the servers theirs. Until then
# both stay down. Load generators are started by hand.
start_stampede() {
    case $ROLE in
        all)
            enable_unit
            systemctl start stampede.service
            ;;
        mesh)
            enable_unit
            docker compose run --rm --no-TTY --no-deps secrets
            ;;
        servers) enable_unit ;;
        load) ;;
    esac
}

enable_unit() {
    local units=$tree/deploy/ec2/units system=/etc/systemd/system
    install -D -m 0644 "$units/stampede.service" "$system/stampede.service"
    if [[ $ROLE != all ]]; then
        install -D -m 0644 "$units/$ROLE.conf" "$system/stampede.service.d/$ROLE.conf"
    fi
    systemctl daemon-reload
    systemctl enable stampede.service
}

main
