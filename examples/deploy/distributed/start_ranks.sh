#!/bin/sh
# Gives each machine its ranks by ssh, and starts or stops their launchers:
#
#   start_ranks.sh start MACHINES WORKER      WORKER: host:port of the distributed worker
#   start_ranks.sh stop MACHINES
#   start_ranks.sh status MACHINES
#
# MACHINES is a file with one line for each machine: its name for ssh, its address for other ranks, its first rank, and
# how many ranks it has. Lines that begin with # are left out. For example
#
#   serving@host-a 192.168.0.11 0 2
#   serving@host-b 192.168.0.12 2 2
#
# On each machine there must be the package, distributed_agents.py, the models of its ranks and
# mindspore-serving-ranks.service; the user of ssh may call sudo. SERVING_MODEL_FILES says where the models are, and
# SERVING_RANKS_TLS where tls.crt, tls.key and ca.crt are, if the server has TLS for ranks.
set -eu

usage() {
  sed -n 's/^# \{0,1\}//; 2,/^set/p' "$0" | sed '$d' >&2
  exit 2
}

[ $# -ge 2 ] || usage
action=$1 machines=$2 worker=${3:-}
case $action in
  start) [ -n "$worker" ] || usage ;;
  stop | status) ;;
  *) usage ;;
esac

settings() { # address, first rank, ranks
  echo "SERVING_RANKS_ADDRESS=$worker"
  echo "SERVING_MODEL_FILES=${SERVING_MODEL_FILES:-/opt/serving/models/rank_{rank\}.mindir}"
  echo "SERVING_AGENT_IP=$1"
  echo "SERVING_RANK_START=$2"
  echo "SERVING_RANKS_HERE=$3"
  [ -z "${SERVING_RANKS_TLS:-}" ] || echo "SERVING_RANKS_TLS=$SERVING_RANKS_TLS"
}

code=0
while read -r machine address first count rest; do
  case $machine in '' | '#'*) continue ;; esac
  if [ -z "$count" ] || [ -n "$rest" ]; then
    echo "$machines: '$machine' should be followed by an address, a rank and a number of ranks" >&2
    exit 2
  fi
  case $action in
    start)
      settings "$address" "$first" "$count" | ssh "$machine" 'sudo mkdir -p /etc/mindspore-serving &&
        sudo tee /etc/mindspore-serving/ranks.env >/dev/null &&
        sudo systemctl enable mindspore-serving-ranks && sudo systemctl restart mindspore-serving-ranks' ;;
    stop) ssh -n "$machine" 'sudo systemctl disable --now mindspore-serving-ranks' ;;
    status) ssh -n "$machine" 'systemctl --no-pager --lines 3 status mindspore-serving-ranks' ;;
  esac || {
    echo "$machine: could not $action" >&2
    code=1
  }
done <"$machines"
exit $code
