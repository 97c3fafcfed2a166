// Where there is assembly, functions without a body are allowed, which the
// names of runtime.go are.
