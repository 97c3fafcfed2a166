#compdef mxpipe
# zsh completion for mxpipe(1).

_arguments -S \
	'(-f --sender)'{-f+,--sender=}'[envelope sender; empty or <> is the null sender]:address:' \
	'--socket=[socket of mxpolicyd]:socket:_files' \
	'--transport=[transport of mxpolicyd]:name:' \
	'--queue-id=[id that the mail server has for the message]:id:' \
	'--nexthop=[deliver there]:domain or [host]:' \
	'--size=[size of the message, a hint]:bytes:' \
	'--body=[body type]:type:(7bit 8bitmime)' \
	'--smtputf8[the message needs SMTPUTF8]' \
	'--requiretls[the message must not travel without TLS]' \
	'--quarantined[a content check marked the message]' \
	'--ret=[what to return of the message]:what:(full hdrs)' \
	'--envid=[envelope id]:id:' \
	'--notify=[when to notify]:list:_values -s , when NEVER SUCCESS FAILURE DELAY' \
	'*--orcpt=[original recipient]:type;address:' \
	'--timeout=[give up, temporarily, after this long]:duration:' \
	'(- *)--version[print the version]' \
	'(- *)--help[print the usage]' \
	'*:recipient:'
