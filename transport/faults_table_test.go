package transport

// faultTable is the fault matrix. Each line is one or more cells: every stage
// of the first column with every fault of the second.
//
//	outcome   the D.S.N of the host that fails, or 2.0.0 if the message gets
//	          there all the same
//	bound     which time-out ended it; all others are set to an hour. "none":
//	          it ended without any; "caller": the mail server's patience did;
//	          "farewell": the answer was there at once,
//	          and only the goodbye waited
//	next      whether the next host of the domain got the message: next or last
//	end       what became of the connection: drop (closed without a word), quit
//	          (QUIT), rset (RSET and used again), gone (the server had closed
//	          it), clear (the message went over it in the clear), plain (and the
//	          message went in the clear over a second one), again (and the
//	          message went over a second one as it would have over the first),
//	          none (there never was one)
//
// Stages ending in "!" are those of a host whose policy asks for TLS.
const faultTable = `
# stages                          faults                                    outcome bound      next end

# Silence. Nothing was accepted yet, so another host may have the message.
greeting,ehlo,helo,ehlo2,ehlo2!   silence,half,drip                         4.4.2   command    next drop
mail,rcpt,data,flight,body        silence,half,drip                         4.4.2   command    next drop
starttls                          silence,half,drip                         2.0.0   command    last plain
starttls!                         silence,half,drip                         4.7.5   command    next drop
# In one flight the message has left already.
bdat                              silence,half,drip                         4.4.2   command    last drop
dot,last,chunk,tlsdot             silence,half,drip                         4.4.2   submission last drop

# The server is silent, and the mail server waits no longer.
greeting,ehlo,helo,ehlo2,ehlo2!   abandoned                                 4.4.7   caller     last drop
starttls,starttls!                abandoned                                 4.4.7   caller     last drop
handshake,handshake!              abandoned                                 4.4.7   caller     last drop
mail,rcpt,data,flight,body        abandoned                                 4.4.7   caller     last drop
# The message may have been accepted: the wait goes on for its own time.
bdat                              abandoned                                 4.4.2   command    last drop
dot,last,chunk,tlsdot             abandoned                                 4.4.2   submission last drop

# The end of the connection, in the middle of a reply or before it.
greeting,ehlo,helo,ehlo2!         cut,close,reset,alert                     4.4.2   none       next gone
mail,rcpt,data,flight,body        cut,close,reset,alert                     4.4.2   none       next gone
starttls,ehlo2                    cut,close,reset,alert                     2.0.0   none       last plain
starttls!                         cut,close,reset,alert                     4.7.5   none       next gone
dot,last,chunk,tlsdot             cut,close,reset,alert                     4.4.2   none       last gone
bdat                              cut,alert                                 4.4.2   none       last gone
# Before a word was said about the message, it goes on.
bdat                              close,reset                               4.4.2   none       next gone
ehlo2                             bye                                       2.0.0   none       last plain
ehlo2!                            bye                                       4.4.2   none       next gone
tlsdot                            bye                                       4.4.2   none       last gone

# What is no reply: no one can tell which command the next line answers.
greeting,ehlo,helo                line,lines,reply                          4.5.0   none       next drop
ehlo2,ehlo2!                      line,lines,reply,unknown,mixed,garbage,binary,nulcode 4.5.0 none next drop
# Before STARTTLS and PIPELINING a few such lines are skipped.
greeting,ehlo,helo                unknown,garbage,binary,nulcode            4.5.0   command    next drop
greeting                          mixed                                     5.0.0   none       next drop
ehlo                              mixed                                     5.7.1   none       next drop
helo                              mixed                                     5.0.0   none       next drop
greeting,ehlo,helo                stray                                     2.0.0   none       last quit
mail,rcpt,flight                  line,lines,reply,unknown,mixed,garbage,binary,nulcode 4.5.0 none next drop
starttls                          line,lines,reply,unknown,mixed,garbage,binary,nulcode 2.0.0 none last plain
starttls!                         line,lines,reply,unknown,mixed,garbage,binary,nulcode 4.7.5 none next drop
data,body,bdat,dot,last,chunk,tlsdot line,lines,reply,unknown,mixed,garbage,binary,nulcode 4.5.0 none last drop

# A reply that this command cannot have.
greeting,ehlo,helo,ehlo2,ehlo2!   wrong                                     4.5.0   none       next drop
mail,rcpt                         wrong                                     4.5.0   none       next quit
flight                            wrong                                     4.5.0   none       next quit
starttls                          wrong                                     2.0.0   none       last plain
starttls!                         wrong                                     4.7.5   none       next drop
data,dot,last,chunk,tlsdot        wrong                                     4.5.0   none       last quit
body                              wrong                                     4.5.0   none       last drop
bdat                              wrong                                     4.5.0   none       next drop

# One reply too many: a late one to an old command, or one made up. From here
# on each would be taken for the answer to the command before.
greeting,ehlo,helo,ehlo2,ehlo2!   twice                                     4.5.0   none       next drop
mail                              twice                                     4.5.0   none       next drop
rcpt,data,flight,bdat             twice                                     4.5.0   none       last drop
# After the reply to STARTTLS it is an attack.
starttls,starttls!                twice                                     4.7.5   none       next drop
# A success is one only when the replies add up.
dot,last,chunk,tlsdot             twice,leaves                              4.5.0   none       last drop

# The server goes away, and says so. It has refused the message by that.
greeting,ehlo,helo,ehlo2,ehlo2!   421                                       4.3.2   none       next drop
starttls                          421                                       4.3.2   none       next drop
starttls!                         421                                       4.7.5   none       next drop
mail,data                         421                                       4.3.2   none       next quit
rcpt,flight,bdat,body,dot,last,chunk,tlsdot 421                             4.3.2   none       next drop

# Refused for now, in words of all kinds.
greeting,ehlo,helo,ehlo2,ehlo2!   later                                     4.3.0   none       next drop
greeting,ehlo,helo,ehlo2,ehlo2!   latin,nul,huge,lf                         4.2.1   none       next drop
starttls                          later,latin,nul,huge,lf                   2.0.0   none       last clear
starttls!                         later,latin,nul,huge,lf                   4.7.5   none       next drop
mail,rcpt,flight                  later                                     4.3.0   none       next rset
mail,rcpt,flight                  latin,nul,huge,lf                         4.2.1   none       next rset
bdat                              later                                     4.3.0   none       next drop
bdat                              latin,nul,huge,lf                         4.2.1   none       next drop
data,dot,last,chunk,tlsdot        later                                     4.3.0   none       last quit
data,dot,last,chunk,tlsdot        latin,nul,huge,lf                         4.2.1   none       last quit
body                              later                                     4.3.0   none       last drop
body                              latin,nul,huge,lf                         4.2.1   none       last drop

# Refused for good. Before MAIL it is the host that refuses, not the message.
greeting,ehlo,helo,ehlo2,ehlo2!   no                                        5.7.1   none       next drop
starttls                          no                                        2.0.0   none       last clear
starttls!                         no                                        4.7.5   none       next drop
mail,rcpt,flight                  no                                        5.7.1   none       last rset
bdat,body                         no                                        5.7.1   none       last drop
data,dot,last,chunk,tlsdot        no                                        5.7.1   none       last quit

# EHLO as large as a reply may be, and one line more.
ehlo,ehlo2                        big                                       2.0.0   none       last quit
ehlo,ehlo2                        bigger                                    4.5.0   none       next drop

# The handshake.
handshake                         silence,half                              2.0.0   command    last plain
handshake!                        silence,half                              4.7.5   command    next drop
handshake                         drip                                      2.0.0   command    last plain
handshake!                        drip                                      4.7.5   command    next drop
handshake                         cut,close,reset                           2.0.0   none       last plain
handshake!                        cut,close,reset,alert,truncated           4.7.5   none       next gone
handshake                         alert,truncated,tlsalert,garbage,binary,line 2.0.0 none      last plain
handshake!                        tlsalert,garbage,binary,line              4.7.5   none       next drop
handshake                         oldtls,bomb                               2.0.0   none       last plain
handshake!                        oldtls,bomb                               4.7.5   none       next drop
handshake,handshake!              names                                     2.0.0   none       last quit

# After the delivery nothing that a server does changes what became of it.
rset                              silence,half,drip                         5.1.1   farewell   last drop
rset                              cut,close,reset,alert                     5.1.1   none       last gone
rset                              line,lines,reply,unknown,mixed,garbage,binary,nulcode 5.1.1 none last drop
rset                              wrong,421,later,no,latin,nul,huge,lf      5.1.1   none       last drop
rset                              twice                                     5.1.1   none       last drop
quit                              silence,half,drip                         2.0.0   farewell   last drop
quit                              cut,close,reset,alert                     2.0.0   none       last gone
quit                              line,lines,reply,unknown,mixed,garbage,binary,nulcode 2.0.0 none last drop
quit                              wrong,421,later,no,latin,nul,huge,lf,twice 2.0.0  none       last drop

# A connection that was idle fails for nothing: a new one takes its place.
idle                              half                                      2.0.0   none       last again
idle                              cut,close,reset,alert                     2.0.0   none       last again
idle                              line,lines,reply,unknown,mixed,garbage,binary,nulcode 2.0.0 none last again
idle                              wrong,421,later,no,latin,nul,lf,twice     2.0.0   none       last again
tlsidle                           cut,close,reset,bye,421,garbage           2.0.0   none       last again
warm                              silence,half,drip                         2.0.0   command    last again
warm                              cut,close,reset,alert,421                 2.0.0   none       last again
warm                              line,lines,reply,unknown,mixed,garbage,binary,nulcode 2.0.0 none last again
warm                              later                                     4.3.0   none       next rset
warm                              no                                        5.7.1   none       last rset

# TCP.
tcp                               refused                                   4.4.1   none       next none
tcp                               silence                                   4.4.1   connect    next none

# DNS: for the mail servers, for one server's address, for its TLSA records.
mx                                servfail,bogus,refused,notimp,formerr     4.4.3   none       last none
mx                                garbage,lying,referral                    4.4.3   none       last none
mx                                silence,wrongid,wrongquestion,notresponse 4.4.3   dns        last none
address                           servfail,bogus,refused,notimp,formerr     4.4.3   none       next none
address                           garbage,lying,referral                    4.4.3   none       next none
address                           silence,wrongid,wrongquestion,notresponse 4.4.3   dns        next none
tlsa                              servfail,bogus,refused,notimp,formerr     4.7.5   none       next none
tlsa                              garbage,lying                             4.7.5   none       next none
tlsa                              silence,wrongid,wrongquestion,notresponse 4.7.5   dns        next none
`
