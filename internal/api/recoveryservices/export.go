package recoveryservices

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"strings"

	"kluis/internal/api/arm"
)

// exportJobs writes the jobs, as the list has them with the same $filter, into a blob, and into a second one for
// spreadsheets. Where they are is the operation's result, which is there at once.
func (d *door) exportJobs(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := d.s.VaultOf(ctx, target(r), "action"); err != nil {
		return nil, err
	}
	all, err := d.filteredJobs(ctx, r)
	if err != nil {
		return nil, err
	}
	list, err := json.Marshal(all)
	if err != nil {
		return nil, fmt.Errorf("encode exported jobs: %w", err)
	}
	sheet, err := workbook(rowsOf(all))
	if err != nil {
		return nil, fmt.Errorf("write exported jobs for spreadsheets: %w", err)
	}
	id := d.o.NewID()
	o := exportOperation{ObjectType: "ExportJobsOperationResultInfo"}
	for _, file := range []struct {
		name, kind string
		data       []byte
		url, sas   *string
	}{
		{"exportjobsreport" + id, "application/json", list, &o.URL, &o.SAS},
		{"exportjobsreport" + id + ".xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", sheet, &o.ExcelURL, &o.ExcelSAS},
	} {
		p, err := d.s.ExportJobs(ctx, r.ID, file.name, file.kind, file.data)
		if err != nil {
			return nil, err
		}
		*file.url, *file.sas = p.URL, "?"+p.Query
	}
	d.exports.keep(r.ID, id, d.o.Now(), o)
	return arm.Accepted("", r.URL(r.ID.Child("backupJobs", "operationResults").String()+"/"+id)), nil
}

// exportResult tells where the exported jobs are. Azure asks for it under a job's address that is none. Whoever is
// told reads them, so it takes what exporting takes.
func (d *door) exportResult(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	vault := vaultOf(r.ID)
	if _, err := d.s.VaultOf(ctx, r.ID, "read"); err != nil {
		return nil, err
	}
	if !strings.EqualFold(r.ID.Name(), "operationResults") {
		return nil, noSuchOperation(r.Action)
	}
	export, err := d.exports.find(vault, r.Action)
	if err != nil {
		return nil, err
	}
	return arm.OK(exportBody{Operation: export.body}), nil
}

// rowsOf are the jobs as rows of a sheet, with a line of headings.
func rowsOf(all []resource[jobProperties]) [][]string {
	rows := [][]string{{"Workload name", "Operation", "Status", "Type", "Start time", "End time", "Duration", "Error code", "Error", "Job id"}}
	for _, j := range all {
		p := j.Properties
		var failure jobError
		if len(p.ErrorDetails) > 0 {
			failure = p.ErrorDetails[0]
		}
		rows = append(rows, []string{p.EntityFriendlyName, p.Operation, p.Status, p.BackupManagementType, p.StartTime, p.EndTime, fmt.Sprint(p.Duration), failure.Title, failure.Message, j.Name})
	}
	return rows
}

// The parts of the smallest workbook that there is (ECMA-376, Office Open XML).
const (
	workbookTypes = `<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>` +
		`<Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>` +
		`<Override PartName="/xl/worksheets/sheet1.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>`
	workbookRelations = `<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" ` +
		`Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>`
	workbookSheets = `<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships">` +
		`<sheets><sheet name="Jobs" sheetId="1" r:id="rId1"/></sheets></workbook>`
	workbookSheet = `<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" ` +
		`Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/></Relationships>`
)

// sheetBody is a sheet whose cells are texts.
type sheetBody struct {
	XMLName xml.Name   `xml:"http://schemas.openxmlformats.org/spreadsheetml/2006/main worksheet"`
	Rows    []sheetRow `xml:"sheetData>row"`
}

type sheetRow struct {
	Cells []sheetCell `xml:"c"`
}

type sheetCell struct {
	Kind string `xml:"t,attr"`
	Text string `xml:"is>t"`
}

// workbook writes rows of text as a workbook with one sheet.
func workbook(rows [][]string) ([]byte, error) {
	var body sheetBody
	for _, row := range rows {
		var r sheetRow
		for _, text := range row {
			r.Cells = append(r.Cells, sheetCell{"inlineStr", text})
		}
		body.Rows = append(body.Rows, r)
	}
	sheet, err := xml.Marshal(body)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, part := range []struct{ name, text string }{{"[Content_Types].xml", workbookTypes}, {"_rels/.rels", workbookRelations},
		{"xl/workbook.xml", workbookSheets}, {"xl/_rels/workbook.xml.rels", workbookSheet}, {"xl/worksheets/sheet1.xml", string(sheet)}} {
		w, err := z.Create(part.name)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write([]byte(xml.Header + part.text)); err != nil {
			return nil, err
		}
	}
	err = z.Close()
	return b.Bytes(), err
}
