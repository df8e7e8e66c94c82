// Package driver is what the Go drivers share: the features, each run by itself, and how their outcome is told. The form is
// that of driver.py, one folder up.
package driver

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// Patience is how long anything may take.
const Patience = 60 * time.Second

// Records that each feature sends, where the number does not matter.
const Records = 300

// Codecs by their names.
var Codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// What the driver was called with.
var (
	Bootstrap []string
	Prefix    string
	Replicas  int
)

// Absent is why a client has no way to do it.
type Absent string

func (absent Absent) Error() string { return string(absent) }

// Feature is one row of the table.
type Feature struct {
	Name  string
	Check func() error
}

// Values compress, differ, and are of different lengths.
func Values(tag string) []string {
	values := make([]string, Records)
	for number := range values {
		values[number] = fmt.Sprintf("%s %d %s", tag, number, strings.Repeat("water ", number%13))
	}
	return values
}

// Expect says what is wrong if it is not what was wanted.
func Expect(found, wanted any, what string) error {
	if fmt.Sprint(found) == fmt.Sprint(wanted) {
		return nil
	}
	return fmt.Errorf("%s: %.200s instead of %.200s", what, fmt.Sprint(found), fmt.Sprint(wanted))
}

// Eventually gives the check ten seconds: the node that is asked may learn of a change after the one that made it.
func Eventually(check func() error) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		failure := check()
		if failure == nil || time.Now().After(deadline) {
			return failure
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Kill has the ring kill a node and start it again; the channel is closed when the node is back.
func Kill(node int32) <-chan struct{} {
	back := make(chan struct{})
	tell(map[string]string{"kill": strconv.Itoa(int(node))})
	go func() {
		defer close(back)
		bufio.NewReader(os.Stdin).ReadString('\n')
	}()
	return back
}

// Found is the value of each offset that was read.
type Found map[int64]string

// WhileKilled sends one record after the other while the leader is killed and comes back, and reads them. It answers how many
// there were; each must be there once, in order.
func WhileKilled(leader func() (int32, error), send func(string) error, poll func(Found) error) (int, error) {
	found, number, last := Found{}, 0, -1
	var back <-chan struct{}
	for ; last < 0 || number < last; number++ {
		if err := errors.Join(send(fmt.Sprint("killed ", number)), poll(found)); err != nil {
			return number, err
		}
		if number == 200 {
			node, err := leader()
			if err != nil {
				return number, err
			}
			back = Kill(node)
		}
		select {
		case <-back:
			back, last = nil, number+200
		default:
		}
	}
	for deadline := time.Now().Add(Patience); len(found) < number && time.Now().Before(deadline); {
		if err := poll(found); err != nil {
			return number, err
		}
	}
	wanted := Found{}
	for at := range number {
		wanted[int64(at)] = fmt.Sprint("killed ", at)
	}
	if err := Expect(len(found), number, "records"); err != nil {
		return number, err
	}
	return number, Expect(found, wanted, "records by offset")
}

// Run runs all features of a client; its version is that of its module.
func Run(client, module string, features []Feature) {
	Bootstrap, Prefix = strings.Split(os.Args[1], ","), os.Args[2]
	Replicas, _ = strconv.Atoi(os.Args[3])
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dependency := range info.Deps {
			if dependency.Path == module {
				version = strings.TrimPrefix(dependency.Version, "v")
			}
		}
	}
	tell(map[string]string{"client": client, "version": version})
	for _, feature := range features {
		outcome, why := "pass", ""
		if failure := attempt(feature.Check); failure != nil {
			outcome, why = "fail", failure.Error()
			if absent, ok := failure.(Absent); ok {
				outcome, why = "absent", string(absent)
			}
		}
		tell(map[string]string{"feature": feature.Name, "outcome": outcome, "why": fmt.Sprintf("%.300s", why)})
	}
}

func attempt(check func() error) (failure error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			failure = fmt.Errorf("it panicked: %v", panicked)
		}
	}()
	return check()
}

func tell(fields map[string]string) {
	line, _ := json.Marshal(fields)
	fmt.Println(string(line))
}
