// Command empty does nothing: it is what a Go program costs at the least.
package main

func main() {}
