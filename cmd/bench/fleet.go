package main

import "io"

const runOne = "fleet-run"

func fleet([]string, io.Writer, io.Writer) error    { return nil }
func fleetRun([]string, io.Writer, io.Writer) error { return nil }
