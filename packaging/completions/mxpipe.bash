# bash completion for mxpipe(1).

_mxpipe() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
	# Bash makes a word of its own of the = in --flag=VALUE.
	if [[ $current == = ]]; then
		current=
	elif [[ $previous == = ]]; then
		previous=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	case $previous in
	--socket)
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	--body)
		mapfile -t COMPREPLY < <(compgen -W '7bit 8bitmime' -- "$current")
		return
		;;
	--ret)
		mapfile -t COMPREPLY < <(compgen -W 'full hdrs' -- "$current")
		return
		;;
	--notify)
		mapfile -t COMPREPLY < <(compgen -W 'NEVER SUCCESS FAILURE DELAY' -- "$current")
		return
		;;
	-f | --sender | --transport | --queue-id | --nexthop | --size | --envid | --orcpt | --timeout)
		return
		;;
	esac
	if [[ $current == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W '-f --sender --socket --transport --queue-id --nexthop --size --body --smtputf8
			--requiretls --quarantined --ret --envid --notify --orcpt --timeout --version --help' -- "$current")
	fi
}

complete -F _mxpipe mxpipe
