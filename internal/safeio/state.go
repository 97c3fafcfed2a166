package safeio

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ReadJSON reads a file of at most so many bytes, which Write has written, into
// a value. One that is not there is an error that is fs.ErrNotExist, and leaves
// the value as it is; each error names the file.
func ReadJSON(dir, name string, most int64, into any) error {
	path := filepath.Join(dir, name)
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	var text []byte
	if info.Size() > most {
		err = errors.New("it is too large")
	} else if text, err = os.ReadFile(path); err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
