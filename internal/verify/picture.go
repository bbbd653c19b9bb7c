package verify

import (
	"os"
	"time"

	"github.com/anishathalye/porcupine"
)

// around is how much of the history is drawn before a finding and after it.
const around = 2 * time.Second

// picture draws what happened to the target of the first finding about that
// time: which clients had its lock, which worked, and which faults met them.
func (r *Report) picture(path string) error {
	all := r.Findings()
	if len(all) == 0 {
		return nil
	}
	first, hist := all[0], r.History
	target := 0
	for i, t := range hist.Targets {
		if t.Name == first.Target {
			target = i
		}
	}
	from, to := first.At-int64(around), first.At+int64(around)
	var ops []porcupine.Operation
	clients := 1
	for _, op := range hist.lockOps(target) {
		h := op.Input.(lockOp).hold
		end := hist.ended(h)
		if end < from || h.Acquire.Call > to { // a hold is drawn whole, or not
			continue
		}
		if op.Return == never { // it has no end, and wants one to be drawn
			op.Return = max(op.Call, end)
		}
		clients = max(clients, op.ClientId+1)
		ops = append(ops, op)
	}
	model := lockModel(lockState{}, true)
	_, info := porcupine.CheckOperationsVerbose(model, ops, blameTime)
	var notes []porcupine.Annotation
	for _, f := range hist.Faults {
		if f.Return >= from && f.Call <= to {
			text := f.Kind + " " + f.Detail
			notes = append(notes, porcupine.Annotation{Tag: "faults", Start: f.Call, End: f.Return, Description: text,
				Details: "process " + f.Proc + ", session " + f.Label, BackgroundColor: "#fd8"})
		}
	}
	for _, op := range hist.settled(target) {
		if w := op.Input.(Write); op.Return >= from && op.Call <= to {
			notes = append(notes, porcupine.Annotation{Tag: "register", Start: op.Call, End: min(op.Return, to), Description: w.String()})
		}
	}
	for _, x := range all {
		if x.Target == first.Target && x.At <= to {
			notes = append(notes, porcupine.Annotation{Tag: "findings", Start: x.At, End: x.At, Description: x.Kind, Details: x.Text, BackgroundColor: "#f66"})
		}
	}
	info.AddAnnotations(notes)
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := porcupine.Visualize(model, info, f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// ended is when h was over as far as anybody said.
func (hist *History) ended(h *Hold) int64 {
	switch {
	case h.Release.Return != 0:
		return h.Release.Return
	case h.Ended != 0:
		return h.Ended
	}
	if killed, ok := hist.look().killed[h.Proc]; ok {
		return killed
	}
	return hist.End
}
