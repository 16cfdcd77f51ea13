# bash completion for bartleby(8)

_bartleby() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} words
    case $previous in
        --format) words='text json csv' ;;
        -w | -c | --warning | --critical) return ;;
        --age-warning | --age-critical | --return-warning | --return-critical | --web) return ;;
        *)
            case ${COMP_WORDS[1]} in
                "$current") words='list flush watch outage check metrics doctor as-root -V --version -h --help' ;;
                list) words='--format --watch' ;;
                flush) words='--wait --despite-refusals --despite-overdue all domain: id:' ;;
                watch) words='--once' ;;
                outage) words='--format' ;;
                doctor) words='--web --rehearse' ;;
                check)
                    words='-w -c --warning --critical --age-warning --age-critical'
                    words+=' --return-warning --return-critical'
                    ;;
            esac
            ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -F _bartleby bartleby
