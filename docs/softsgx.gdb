# For gdb and programs of `softsgx run`: gdb -x softsgx.gdb ...
# Code in front of the program handles these signals; what is the program's own still reaches it.
handle SIGSYS SIGSEGV SIGILL SIGBUS SIGFPE SIG55 nostop noprint pass
# Inside a native enclave FS is the enclave's, and libthread_db takes it for that of the C library.
set libthread-db-search-path /none
